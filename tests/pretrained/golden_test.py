"""CLIP and BLIP against tensors recorded from PyTorch transformers (tests/record_golden.py; versions in the files)."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from contextjax.pretrained import read_pretrained
from contextjax.pretrained.names import flatten, write
from contextjax.pretrained.read import BLIP_HF, CLIP_HF
from tests.parity import peers

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module", params=["clip", "blip"])
def golden(request, tmp_path_factory):
    """(read checkpoint, its parameters, inputs, outputs, gradient norms) of a family."""
    folder = tmp_path_factory.mktemp(request.param)
    with safe_open(GOLDEN / f"{request.param}_tiny.safetensors", "numpy") as file:
        (folder / "config.json").write_text(file.metadata()["config"])
        groups = {"weights": {}, "input": {}, "output": {}, "gradnorm": {}}
        for key in file.keys():  # noqa: SIM118
            group, _, name = key.partition(".")
            groups[group][name] = file.get_tensor(key)
    save_file(groups["weights"], folder / "model.safetensors")
    checkpoint = read_pretrained(folder)
    return (
        checkpoint,
        peers.read_params(checkpoint.params),
        peers.Inputs(**groups["input"]),
        groups["output"],
        groups["gradnorm"],
    )


def test_outputs_are_those_recorded(golden):
    checkpoint, params, inputs, outputs, _ = golden
    got = peers.ours(checkpoint, params, inputs)
    assert got.keys() == outputs.keys()
    for name, value in outputs.items():
        np.testing.assert_allclose(got[name], value, atol=1e-5, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("option", ["scan", "remat"])
def test_options_change_no_number(golden, option):
    checkpoint, params, inputs, _, norms = golden
    options = {option: "full" if option == "remat" else True}
    other = read_pretrained(checkpoint.folder, vision=options, text=options)
    other_params = peers.read_params(other.params)
    plain, changed = peers.ours(checkpoint, params, inputs), peers.ours(other, other_params, inputs)
    for name, value in plain.items():
        np.testing.assert_allclose(changed[name], value, atol=1e-6, err_msg=name)

    def scalar(checkpoint):
        return lambda params: sum((x**2).mean() for x in peers.ours(checkpoint, params, inputs).values())

    table = (CLIP_HF if checkpoint.family.startswith("CLIP") else BLIP_HF).table(checkpoint.model.config)
    gradients = [
        write(table, flatten(jax.jit(jax.grad(scalar(f)))(jax.tree.map(jnp.asarray, p))))
        for f, p in ((checkpoint, params), (other, other_params))
    ]
    assert norms.keys() <= gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        np.testing.assert_allclose(gradients[1][name], value, atol=1e-6, err_msg=name)
        if name in norms and not name.endswith("word_embeddings.weight"):  # whose padding row PyTorch leaves alone
            np.testing.assert_allclose(np.linalg.norm(value), norms[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_recording_says_what_it_was_made_with():
    for family in ("clip", "blip"):
        with safe_open(GOLDEN / f"{family}_tiny.safetensors", "numpy") as file:
            assert set(json.loads(file.metadata()["versions"])) == {"torch", "transformers"}
