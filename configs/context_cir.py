"""ConText-CIR as published (CVPR 2025), from a pretrained CLIP, on a folder in CIRR's layout.

    python -m experiments.train --config=configs/context_cir.py:L14 --config.data.folder=CIRR --workdir=runs/cirr_L14

Arguments: the size, B32, B16 (default), L14 or H14. The CLIP comes from the hub, or from a folder given as
--config.model.pretrained=FOLDER. Accelerators compute in bfloat16; on a CPU add --config.model.dtype=float32.

Loss, schedule and lengths are the paper's (configs/base.py): lambda 0.08, temperature 0.07, references as negatives,
AdamW 1e-5 with 500 steps of warm-up and warm restarts from 2,500 steps, 35,000 steps of 256 triplets (H14: 64 a device
on four devices), no augmentation.

Published on CIRR's test split, R@1 / R@5 / Rs@1 (never reproduced here): ViT-B 49.8 / 81.5 / 76.6 (B32 or B16 is not
said), L14 52.7 / 83.3 / 80.3, H14 55.2 / 84.9 / 83.0; these mix four training sets, of which CIRR alone gave H14 45.3.
Memory and devices needed: not computed yet.
"""

from configs.base import base

PRETRAINED = {
    "B32": "openai/clip-vit-base-patch32",
    "B16": "openai/clip-vit-base-patch16",
    "L14": "openai/clip-vit-large-patch14",
    "H14": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
}


def get_config(argument: str = "B16"):
    """The published recipe at a size."""
    if argument not in PRETRAINED:
        raise ValueError(f"The size is '{argument}'; expected one of {', '.join(PRETRAINED)}.")
    config = base()
    config.model.variant = argument
    config.model.pretrained = PRETRAINED[argument]
    config.model.dtype = "bfloat16"
    config.training.diagnose_every = 500
    return config
