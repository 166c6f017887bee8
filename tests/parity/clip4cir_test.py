"""CLIP4Cir's Combiner and loss against a few lines of PyTorch: outputs to 1e-5, gradients to 1e-4."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from contextjax.losses.contrastive import contrastive_loss  # noqa: E402
from contextjax.models.combiner import Combiner  # noqa: E402
from contextjax.models.layers import normalize  # noqa: E402
from contextjax.pretrained.clip4cir import NAMES  # noqa: E402

pytestmark = pytest.mark.parity


class Peer(torch.nn.Module):
    def __init__(self, d):
        super().__init__()
        linear = torch.nn.Linear
        self.text_projection_layer, self.image_projection_layer = linear(d, 4 * d), linear(d, 4 * d)
        self.combiner_layer, self.output_layer = linear(8 * d, 8 * d), linear(8 * d, d)
        self.dynamic_scalar = torch.nn.Sequential(
            linear(8 * d, 8 * d), torch.nn.ReLU(), torch.nn.Dropout(0.5), linear(8 * d, 1), torch.nn.Sigmoid()
        )

    def forward(self, image, text):
        read = torch.relu(torch.cat([self.text_projection_layer(text), self.image_projection_layer(image)], -1))
        share = self.dynamic_scalar(read)
        return self.output_layer(torch.relu(self.combiner_layer(read))) + share * text + (1 - share) * image


@pytest.mark.parametrize("draw", range(20))
def test_outputs_loss_and_gradients_are_those_of_pytorch(draw):
    rng = np.random.default_rng(draw)
    width, count = int(rng.integers(3, 24)), int(rng.integers(2, 9))
    torch.manual_seed(draw)
    peer = Peer(width).eval()
    image, text, target = (3 * rng.normal(size=(count, width)).astype(np.float32) for _ in range(3))
    state = {name: x.detach().numpy() for name, x in peer.state_dict().items()}
    params = {
        ours: {"kernel": jnp.asarray(state[f"{theirs}.weight"].T), "bias": jnp.asarray(state[f"{theirs}.bias"])}
        for ours, theirs in NAMES.items()
    }
    query = peer(torch.tensor(image), torch.tensor(text))
    unit = torch.nn.functional.normalize
    logits = 100 * unit(query) @ unit(torch.tensor(target)).T
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(count))
    expected.backward()

    def loss(params):
        out = Combiner().apply({"params": params}, jnp.asarray(image), jnp.asarray(text))
        total, rows = contrastive_loss(
            normalize(out), normalize(jnp.asarray(target)), temperature=0.01, valid=jnp.ones(count, bool),
            target_ids=jnp.arange(count), one_direction=True,
        )  # fmt: skip
        return total / rows, out

    (value, out), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(out, query.detach().numpy(), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5, atol=1e-5)
    parameters = dict(peer.named_parameters())
    for ours, theirs in NAMES.items():
        for name, ending in (("kernel", "weight"), ("bias", "bias")):
            reference = parameters[f"{theirs}.{ending}"].grad.numpy().T
            largest = max(np.abs(reference).max(), 1e-3)
            np.testing.assert_allclose(gradients[ours][name], reference, atol=1e-4 * largest, err_msg=theirs)
