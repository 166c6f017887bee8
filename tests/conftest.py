"""Eight host devices for the sharding tests, shapes checked in the pure rooms, and what several tests share."""

# ruff: noqa: E402 (what jax and the import hook read must stand before the imports)

import os

from tests.commands import FAST_COMPILATION, in_own_process

# Before jax is imported: it reads them once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("CONTEXTJAX_COMPILE_CACHE", "off")  # the commands that tests run leave the user's alone
for flag in ("--xla_force_host_platform_device_count=8", *FAST_COMPILATION.split()):
    if flag.split("=")[0] not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()

import jaxtyping

jaxtyping.install_import_hook(["contextjax.losses", "contextjax.models", "contextjax.metrics"], "beartype.beartype")

import dataclasses
import fcntl
import json
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models.clip import CLIPConfig
from contextjax.models.context_cir import ContextCIR, ContextCIRConfig
from contextjax.models.text import TextConfig
from contextjax.models.vision import VisionConfig
from contextjax.types import ComposedBatch, Phrases, Tokens

VOCABULARY, LENGTH, SIZE = 32, 10, 16
BOS, EOS, PAD = 0, 1, 2


CLIP = CLIPConfig(
    VisionConfig(SIZE, 8, width=16, layers=1, heads=4, mlp=32),
    TextConfig(VOCABULARY, LENGTH, width=8, layers=1, heads=2, mlp=16),
    projection=8,
)


@dataclasses.dataclass(frozen=True)
class Tiny:
    """A ContextCIR small enough to compile in a second, and random inputs for it."""

    clip: CLIPConfig = CLIP
    vocabulary: int = VOCABULARY

    def model(self, *, dtype=None, **config) -> ContextCIR:
        return ContextCIR(ContextCIRConfig(self.clip, **{"fusion_layers": 1, "fusion_heads": 4, **config}), dtype)

    def params(self, model: ContextCIR, *, seed: int = 0):
        """Random parameters, the zero-initialised ones too, so that every path counts. No init is compiled."""
        rng = np.random.default_rng(seed)

        def draw(path, shape) -> jax.Array:
            noise = rng.normal(size=shape)
            if path[-1].key == "scale":
                noise = 1 + 0.2 * noise
            else:
                noise *= shape[0] ** -0.5 if len(shape) > 1 else 0.2
            return jnp.asarray(noise, jnp.float32)

        return jax.tree_util.tree_map_with_path(draw, self.shapes(model), is_leaf=lambda x: isinstance(x, tuple))

    def shapes(self, model: ContextCIR):
        """The tree of parameter shapes."""
        size = model.config.clip.vision.image_size
        inputs = jnp.zeros((1, size, size, 3), jnp.uint8), jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4), bool)
        boxed = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
        return jax.tree.map(lambda x: x.shape, nn.unbox(boxed))

    def pictures(self, *lead: int, seed: int = 0) -> jax.Array:
        rng = np.random.default_rng(seed)
        return jnp.asarray(rng.integers(0, 256, (*lead, SIZE, SIZE, 3), np.uint8))

    def texts(self, *lead: int, seed: int = 0, length: int = LENGTH) -> Tokens:
        """BOS, 1 to length - 2 words, EOS, padding."""
        rng = np.random.default_rng(seed)
        ids, mask = np.full((*lead, length), PAD, np.int32), np.zeros((*lead, length), bool)
        for index in np.ndindex(*lead):
            words = int(rng.integers(1, length - 1))
            ids[index][: words + 2] = [BOS, *rng.integers(3, VOCABULARY, words), EOS]
            mask[index][: words + 2] = True
        return Tokens(jnp.asarray(ids), jnp.asarray(mask))

    def batch(
        self, references: int, modifications: int, *, phrases: int = 4, groups: int = 1, seed: int = 0
    ) -> ComposedBatch:
        """With `phrases` of each of some groups, captions, and a last modification that is missing."""
        rng = np.random.default_rng(seed)
        texts = self.texts(references, modifications, seed=seed)
        valid = np.ones((references, modifications), bool)
        valid[-1, -1] = modifications == 1
        text = rng.integers(0, max(references * modifications // groups - 1, 1), (groups, phrases)).astype(np.int32)
        masks = np.asarray(texts.mask).reshape(groups, -1, LENGTH)
        words = np.stack([mask[rows].sum(-1) for mask, rows in zip(masks, text, strict=True)]) - 2
        start = rng.integers(1, words + 1)
        end = rng.integers(start, words + 1) + 1
        targets = rng.permutation(np.arange(references, 3 * references * modifications))[: references * modifications]
        return ComposedBatch(
            references=self.pictures(references, seed=seed),
            targets=self.pictures(references, modifications, seed=seed + 1),
            texts=texts,
            valid=jnp.asarray(valid),
            reference_ids=jnp.arange(references, dtype=jnp.int32),
            target_ids=jnp.asarray(targets.reshape(references, modifications).astype(np.int32)),
            records=jnp.arange(references * modifications, dtype=jnp.int32).reshape(references, modifications),
            phrases=Phrases(
                self.texts(groups, phrases, seed=seed + 2, length=6),
                jnp.asarray(text),
                jnp.asarray(np.stack([start, end], axis=-1).astype(np.int32)),
                jnp.asarray(np.tile(np.arange(phrases) < max(phrases - 1, 1), (groups, 1))),
                jnp.zeros((references, 3), jnp.int32),
            ),
            captions=self.texts(references, 1 + modifications, seed=seed + 3),
        )


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
    """A folder of compiled programs for the commands that tests run, many of which compile the same.

    The tests of this process, which look at what is compiled, are without: jax has read its environment.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
        yield


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    return Tiny()


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """The published implementation's numbers at tiny size: weights.*, input.*, output.*, gradnorm.*."""
    from safetensors.numpy import load_file

    return load_file(Path(__file__).parent / "golden" / "context_cir_tiny.safetensors")


def write_pictograms(folder: Path, **groups: int) -> Path:
    from data_pipelines.datasets.pictograms.cirr_layout import write_cirr

    counts = {"train_groups": 3, "val_groups": 2, "test_groups": 1, "unseen_groups": 1, **groups}
    return write_cirr(folder, **counts, canvas=32, processes=1)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """made_once(name, make): a folder that `make` fills once for all workers of the test run. Read only."""
    is_worker = "PYTEST_XDIST_WORKER" in os.environ  # whose base folder lies in the run's
    base = tmp_path_factory.getbasetemp().parent if is_worker else tmp_path_factory.getbasetemp()

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, mark = base / name, base / f"{name}.made"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not mark.exists():
                make(folder)
                mark.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def pictograms(made_once) -> Path:
    """A few groups in CIRR's layout. Read only: a test that changes it takes `pictograms_copy`."""
    return made_once("pictograms_cirr", write_pictograms)


@pytest.fixture(scope="session")
def catalogue_folder(made_once) -> Path:
    """A catalogue of products in three splits. Read only."""
    from tests.catalogues import product_rows, write_catalogue

    return made_once("catalogue", lambda folder: write_catalogue(folder, product_rows()))


@pytest.fixture(scope="session")
def tiny_run(made_once, pictograms) -> Path:
    """The workdir of a ConText-CIR, trained on `pictograms` by configs/pictograms.py:tiny. Read only."""
    return made_once("tiny_run", lambda folder: train_tiny("pictograms.py:tiny", folder, pictograms))


@pytest.fixture(scope="session")
def tiny_sets_run(made_once, pictogram_sets, tiny_run) -> Path:
    """The workdir of a ContextBLIP, trained on `pictogram_sets` by configs/pictogram_sets.py:2a,tiny. Read only."""
    return made_once("tiny_sets_run", lambda folder: train_tiny("pictogram_sets.py:2a,tiny", folder, pictogram_sets))


def train_tiny(recipe: str, workdir: Path, data: Path) -> None:
    """Trains a tiny recipe on a folder, by the command."""
    flags = [f"--config=configs/{recipe}", f"--workdir={workdir}", f"--config.data.folder={data}"]
    if "sets" in recipe:
        flags.append(f"--config.data.val_folder={data}")
    done = in_own_process("train", *flags)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def pictograms_copy(pictograms, tmp_path) -> Path:
    import shutil

    return Path(shutil.copytree(pictograms, tmp_path / "cirr", ignore=shutil.ignore_patterns("prepared")))


@pytest.fixture(scope="session")
def pictogram_sets(made_once) -> Path:
    """A few candidate sets in ImageCoDe's layout. Read only."""
    from data_pipelines.datasets.pictograms.imagecode_layout import write_imagecode

    counts = {"train_sets": 1, "val_sets": 2, "test_sets": 1, "unseen_sets": 1}
    return made_once("pictogram_sets", lambda folder: write_imagecode(folder, **counts, canvas=32, processes=1))


@pytest.fixture
def edit_json():
    """edit_json(path, function): rewrites a JSON file by what `function` returns of its contents."""

    def edit(path: Path, change) -> None:
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return edit
