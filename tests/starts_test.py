"""A run of adapters is loaded on its base, merged; with another base, or none, it is not."""

import contextlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import contextjax
from configs.context_cir import get_config
from contextjax import variants
from contextjax.checkpoints.integrity import digests
from contextjax.checkpoints.writer import CheckpointWriter
from contextjax.lora import NAME, digest, split
from contextjax.pretrained import write_own, write_pretrained
from contextjax.pretrained.names import flatten, unflatten
from contextjax.tokenizers import train_tokenizer
from contextjax.types import TrainState, UserError
from contextjax.variants import make_model
from experiments.shared import models, weights
from experiments.shared.run_config import config_hash
from tests.pretrained.conftest import random_params

TEXTS = ["remove the dog", "make it large"]


def config_of(start="", pretrained=""):
    config = get_config("tiny,lora2")
    config.data.vocabulary = 280
    config.model.start, config.model.pretrained = str(start), str(pretrained)
    return config


def write_lora_run(folder, spec, params, config):
    """A workdir whose checkpoint of step 3 has adapters on `params`, and what it computes, merged here in float64."""
    lora, own = models.lora_of(config), dict(params)
    rng = np.random.default_rng(5)
    shapes = jax.eval_shape(lora.add, own, jax.random.key(0))[NAME]
    adapters = jax.tree.map(lambda x: (0.1 * rng.normal(size=x.shape)).astype(np.float32), shapes)
    held, base = split({**own, NAME: adapters}, config.optimizer.freeze)
    spec.write(folder)
    tokenizer = train_tokenizer(TEXTS, vocabulary=280, length=spec.text_length)
    tokenizer.save(folder / "tokenizer.json")
    (folder / "config.json").write_text(config.to_json())
    record = models.lora_record(config)
    record["lora"]["base"] = digest(base)
    meta = {"step": 3, "config_hash": config_hash(config), "files": digests(folder, ("system.json",)), **record}
    with contextlib.closing(CheckpointWriter(folder / "checkpoints")) as checkpoints:
        checkpoints.save(TrainState.fresh(jax.tree.map(jnp.asarray, held), {}, jax.random.PRNGKey(0)), meta)
        checkpoints.wait()
    flat, thin = flatten(own), flatten(adapters)
    for path in [path.removesuffix("/a") for path in thin if path.endswith("/a")]:
        a, b = (np.asarray(thin[f"{path}/{side}"], np.float64) for side in "ab")
        product = np.einsum("itr,tro->ito", a, b) if path.endswith("qkv_kernel") else a @ b
        flat[path] = (flat[path] + lora.alpha / lora.rank * product).astype(np.float32)
    return unflatten(flat)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder with "base", an export of parameters, and "lora", a run on it; the parameters expected of "lora")."""
    place = tmp_path_factory.mktemp("lora")
    config = config_of(place / "base")
    spec = models.make_spec(config, vocabulary=280)
    params = jax.tree.map(lambda x: 0.2 * x, random_params(make_model(spec)))
    write_own(place / "base", spec, params)
    (place / "lora").mkdir()
    return place, write_lora_run(place / "lora", spec, params, config)


@pytest.fixture
def place(made, tmp_path):
    """A copy whose run looks for its base in the copy."""
    shutil.copytree(made[0], tmp_path / "copy")
    return tmp_path / "copy"


def close(got, expected):
    assert flatten(got).keys() == flatten(expected).keys()
    for path, value in flatten(expected).items():
        np.testing.assert_allclose(flatten(got)[path], value, atol=1e-6, err_msg=path)


@pytest.mark.long
def test_a_run_is_loaded_merged(made):
    place, expected = made
    system = contextjax.load(place / "lora")
    close(system.params, expected)
    assert NAME not in system.params and system.fingerprint.endswith("-3")
    record = json.loads((place / "lora" / "checkpoints" / "3" / "meta" / "metadata").read_text())["lora"]
    assert record["start"] == str(place / "base") and record["family"] == "context_cir" and len(record["base"]) == 16


def test_its_checkpoint_holds_no_base(made):
    from contextjax.checkpoints.reader import CheckpointReader

    with contextlib.closing(CheckpointReader(made[0] / "lora" / "checkpoints")) as checkpoints:
        params, _ = checkpoints.restore_params()
    assert {path.split("/")[0] for path in flatten(params)} == {
        NAME, "clip", "fusion_0", "pooling", "query_projection"
    } and set(params["clip"]) == {"logit_scale"}  # fmt: skip


@pytest.mark.parametrize("command", ["convert", "export"])
def test_it_is_merged_where_it_is_written(made, tmp_path, command):
    place, expected = made
    if command == "export":
        weights.export(str(place / "lora"), tmp_path / "out", formats=["safetensors"])
    else:
        weights.convert(place / "lora", tmp_path / "out")
    close(contextjax.load(tmp_path / "out").params, expected)


def test_it_is_what_another_run_starts_from(made, capsys):
    place, expected = made
    config = config_of(place / "lora")
    fresh = jax.tree.map(jnp.zeros_like, expected)
    close(models.make_start(config)(fresh), expected)
    assert "start from" in capsys.readouterr().out


def test_the_base_may_be_a_published_clip(tmp_path):
    config = config_of(pretrained=tmp_path / "clip")
    config.model.vision.update({"stem": None, "pooling": "cls"})  # as Hugging Face's CLIP
    spec = variants.make_spec(config.model, vocabulary=280)
    params = jax.tree.map(lambda x: 0.2 * x, random_params(make_model(spec)))
    clip = make_model(spec).config.clip
    write_pretrained(tmp_path / "clip", clip, params["clip"])
    (tmp_path / "lora").mkdir()
    expected = write_lora_run(tmp_path / "lora", spec, params, config)
    close(contextjax.load(tmp_path / "lora").params, expected)


# --------------------------------------------------------------------------------- what is no base


def retarget(place, source):
    """Writes the place of the base into the checkpoint, and its checksums again."""
    from contextjax.checkpoints import integrity

    file = place / "lora" / "checkpoints" / "3" / "meta" / "metadata"
    meta = json.loads(file.read_text())
    meta["lora"]["start"] = str(source)
    file.write_text(json.dumps(meta))
    integrity.write(file.parents[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {**t, "clip.text.layer_0.mlp.up.bias": t["clip.text.layer_0.mlp.up.bias"] + 1}, "with the digest"),
        (lambda t: {**t, "clip.vision.class_embedding": t["clip.vision.class_embedding"][:-1]}, "can't be read"),
        (lambda t: {n: x for n, x in t.items() if n != "clip.vision.class_embedding"}, "can't be read: .* missing"),
        (lambda t: {**t, "query_projection.bias": t["query_projection.bias"] + 1}, ""),  # trained: not of the base
    ],
)
def test_another_base_is_refused(place, change, said):
    retarget(place, place / "base")
    file = place / "base" / "model.safetensors"
    save_file(change(load_file(file)), file)
    if not said:
        contextjax.load(place / "lora")
        return
    with pytest.raises(UserError, match=f"The adapters in .*lora were trained on .*base.*{said}"):
        contextjax.load(place / "lora")


def test_a_base_of_other_shapes_is_refused(place, tmp_path):
    config = config_of()
    config.model.vision.width = 16
    spec = models.make_spec(config, vocabulary=280)
    write_own(tmp_path / "other", spec, random_params(make_model(spec)))
    retarget(place, tmp_path / "other")
    with pytest.raises(UserError, match=r"where clip/vision/.* is \[.*16.*\] now and was \[.*32.*\]; put the base"):
        contextjax.load(place / "lora")


def test_a_base_that_is_gone_is_named(place):
    retarget(place, place / "nowhere")
    with pytest.raises(UserError, match=r"were trained on .*nowhere, which can't be read"):
        contextjax.load(place / "lora")


def test_what_is_frozen_has_to_be_given_by_the_start(made):
    place, expected = made
    config = config_of(place / "base")
    config.optimizer.freeze = (*config.optimizer.freeze, "fusion_0")
    models.make_start(config)(jax.tree.map(jnp.zeros_like, expected))
    missing = {**expected, "fusion_0": {"new": {"kernel": jnp.zeros((2, 2))}}}
    with pytest.raises(UserError, match=r"optimizer.freeze names fusion_0/new/kernel, which .*base does not give"):
        models.make_start(config)(jax.tree.map(jnp.zeros_like, missing))
