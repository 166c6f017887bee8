"""Tables match parameters and tensors completely, or name all that does not fit."""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from contextjax.pretrained import read_pretrained
from contextjax.pretrained.names import flatten, write
from contextjax.types import UserError
from tests.pretrained.conftest import change, equal, read


def _table(name):
    from contextjax.pretrained.read import BLIP2_HF, BLIP_HF, CLIP_HF, SIGLIP_HF

    return {"clip": CLIP_HF, "siglip": SIGLIP_HF, "blip": BLIP_HF, "blip2": BLIP2_HF}[name].table


@pytest.mark.long
def test_stacked_layers_hold_the_same_numbers(models, name, folder):
    scan = {"scan": True}
    params, stacked = read(read_pretrained(folder).params), read(read_pretrained(folder, vision=scan, text=scan).params)
    both = read_pretrained(folder, vision=scan).params  # each tower for itself
    assert "layers" in both["vision"] and "layer_0" in both["text"]
    for layer in range(models[name].config.text.layers if name != "blip2" else 0):  # a Q-Former's layers differ
        equal(jax.tree.map(lambda x, n=layer: x[n], stacked["text"]["layers"]), params["text"][f"layer_{layer}"])
    assert (
        write(_table(name)(models[name].config), flatten(stacked)).keys()
        == load_file(folder / "model.safetensors").keys()
    )


@pytest.mark.long
def test_buffers_are_dropped_silently_and_nothing_else_is(name, folder):
    prefix = {"clip": "text_model.", "siglip": "text_model.", "blip": "text_encoder.", "blip2": ""}[name]
    change(folder, lambda t: t | {f"{prefix}embeddings.position_ids": np.arange(5)[None]})
    assert read_pretrained(folder).left_out == []
    change(folder, lambda t: t | {"adapter.weight": np.ones(3, np.float32)})
    with pytest.raises(UserError, match=r"1 unknown \(adapter\.weight\)"):
        read_pretrained(folder)


def test_all_that_does_not_fit_is_named(folder):
    def spoil(tensors):
        names = sorted(tensors)
        tensors["other"] = tensors.pop(names[0])
        tensors[names[3]] = tensors[names[3]][:-1]
        return tensors

    names = sorted(load_file(folder / "model.safetensors"))
    change(folder, spoil)
    with pytest.raises(UserError) as error:
        read_pretrained(folder)
    for part in (f"1 missing ({names[0]})", "1 unknown (other)", "1 of another shape", names[3]):
        assert part in str(error.value)
