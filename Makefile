# Every target sets up .venv by itself. PYTHON=python3.12 chooses another interpreter (3.11 or newer).
PYTHON ?= python3
PY := .venv/bin/python
RUN ?= runs/demo
DATA := data/pictograms

.PHONY: demo test test-slow check format clean

.venv/.done: setup.py constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

# Trains on the pictograms, evaluates, searches and leaves $(RUN)/report/index.html.
demo: .venv/.done
	$(PY) -m experiments.generate --target=$(DATA)
	$(PY) -m experiments.train --config=configs/pictograms.py:demo --workdir=$(RUN)
	$(PY) -m experiments.evaluate --workdir=$(RUN)
	$(PY) -m experiments.report --workdir=$(RUN)
	$(PY) -m experiments.search --workdir=$(RUN) --gallery=$(DATA)/cirr/img_raw/dev \
	  --image=$(DATA)/cirr/img_raw/dev/dev-0-1-img0.png --text="swap the owl for a big eggplant" --top=5

test: .venv/.done
	$(PY) -m pytest --numprocesses=2 --dist=loadfile

test-slow: .venv/.done
	$(PY) -m pytest -m slow

check: .venv/.done
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright
	$(PY) -m pytest tests/architecture_test.py

format: .venv/.done
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

clean:
	rm -rf .venv runs data
