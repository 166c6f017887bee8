"""Records the golden tensors of tests/golden/{clip,blip}_tiny.safetensors from PyTorch transformers.

python -m tests.record_golden          (needs the extra [torch])
"""

import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "golden"
SEED = 7


def main() -> None:
    """weights.*, input.*, output.* and gradnorm.* (of the sum of the outputs' mean squares); config and versions."""
    import torch
    import transformers
    from safetensors.numpy import save_file

    from contextjax.models.vision import VisionConfig
    from tests.parity import peers

    for family, make, outputs in (
        ("clip", peers.clip_config, peers.clip_outputs),
        ("blip", peers.blip_config, peers.blip_outputs),
    ):
        rng = np.random.default_rng(SEED)
        config = make(rng)
        model = peers.build(config, SEED)
        inputs = peers.draw_inputs(config, rng)
        outputs = outputs(model, peers.tensors(inputs, VisionConfig(8, 4, 8, 1, 1, 8)))
        sum((value**2).mean() for value in outputs.values()).backward()
        tensors = {f"weights.{name}": value.detach().numpy() for name, value in model.state_dict().items()}
        tensors |= {f"input.{name}": value for name, value in vars(inputs).items()}
        tensors |= {f"output.{name}": value.detach().numpy() for name, value in outputs.items()}
        tensors |= {
            f"gradnorm.{name}": parameter.grad.norm().numpy()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        tensors = {name: np.asarray(value, order="C") for name, value in tensors.items()}
        save_file(
            tensors, FOLDER / f"{family}_tiny.safetensors",
            metadata={"config": json.dumps(config), "versions": json.dumps(versions)},
        )  # fmt: skip


if __name__ == "__main__":
    main()
