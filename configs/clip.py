"""A CLIP or a SigLIP fine-tuned on pictures and their texts: one's own pairs, COCO or Flickr30k (Karpathy's splits).

    python -m experiments.train --config=configs/clip.py:pairs --config.data.folder=FOLDER --workdir=runs/clip
    python -m experiments.train --config=configs/clip.py:karpathy --config.data.folder=COCO --workdir=runs/clip_coco

Arguments, joined by commas (configs/clip.py:pairs,L14,image0):

    pairs (default)  FOLDER has train.json and val.json, lists of {"image": path, "caption": text or texts}; without a
                     val.json add --config.training.evaluate_every=0
    karpathy         FOLDER has dataset_coco.json or dataset_flickr30k.json and the pictures; the best checkpoint by the
                     mean of the six recalls on val is kept
    B32, B16 (default), L14, H14   the CLIP, from the hub, or from --config.model.pretrained=FOLDER
    SigLIP-B16, SigLIP-L16, SigLIP-So400m14, SigLIP2-B16, ...   a SigLIP, or a SigLIP 2 of fixed resolution, likewise
    image0.1, text0.1   that tower's share of the learning rate, projection included; 0 freezes it. image0 is LiT's
                     form (arXiv 2111.07991)
    lora8            adapters of this rank of the blocks' matrices, and the temperature, are trained alone, at 1e-4
                     (LoRA, arXiv 2106.09685); image0.1 is a share of the adapters' rate then; docs/guides/lora.md
    tiny, tiny_siglip   12 steps of a model that trains in seconds, from nothing, for tests

The loss is CLIP's, symmetric over the batch; other captions of a picture, in the batch beside it, are no negatives. The
temperature goes on from the CLIP's own. A SigLIP's loss is its own, of each pair by itself, with its learned scale and
bias (--config.loss.sigmoid=False: CLIP's); its texts have 64 tokens, at So400m14 16. Other parts are frozen or slowed
by the beginnings of their parameters' paths: --config.optimizer.freeze="('text', 'vision/layer_0')" or
--config.optimizer.multipliers.vision=0.1 (the paths: vision, text, visual_projection, which a SigLIP lacks,
text_projection, logit_scale, and a SigLIP's logit_bias).

More negatives than fit the memory: --config.data.batch_size=4096 --config.training.micro_batches=16 encodes 256 pairs
at a time, and the gradient is that of all 4,096 (gradient caching, arXiv 2101.06983), for one more forward pass.

The schedule is what is usual for fine-tuning: AdamW 1e-5 with a decay of 0.1 on matrices, one cosine; unmeasured.
Accelerators compute in bfloat16; on a CPU add --config.model.dtype=float32. A run is written in Hugging Face's layout
by experiments.convert, and starts ConText-CIR by --config.model.start=RUN. Zero-shot classification and a linear probe:
experiments.classify.
"""

from configs.base import base, numbered, shrink, use_lora
from configs.towers import SIGLIPS, TINY_SIGLIP, TOWERS, start_from

DATA, SIZES = ("pairs", "karpathy"), (*TOWERS, "tiny", TINY_SIGLIP)
PARTS = {"image": ("vision", "visual_projection"), "text": ("text", "text_projection")}


def get_config(argument: str = "pairs"):
    """Returns the recipe of the arguments that the module's docstring lists."""
    names, numbers = numbered(argument, (*PARTS, "lora"))
    if odd := [name for name in names if name not in (*DATA, *SIZES)]:
        known = ", ".join((*DATA, *SIZES, *(f"{name}NUMBER" for name in (*PARTS, "lora"))))
        raise ValueError(f"configs/clip.py has no argument '{odd[0]}'; expected some of {known}.")
    for kind, own in (("data set", DATA), ("size", SIZES)):
        if len(given := [name for name in names if name in own]) > 1:
            raise ValueError(f"configs/clip.py got a second {kind}, '{given[1]}'; give one.")
    config, size = base("clip"), next((name for name in names if name in (*TOWERS, TINY_SIGLIP)), "B16")
    start_from(config, size)
    config.model.dtype, config.loss.sigmoid = "bfloat16", size in (*SIGLIPS, TINY_SIGLIP)
    config.optimizer.update({"learning_rate": 1e-5, "schedule": "cosine", "warmup_steps": 250})
    config.optimizer.update({"weight_decay": 0.1, "decay_vectors": False})
    config.training.update({"steps": 5000, "checkpoint_every": 500, "evaluate_every": 500})
    if "karpathy" in names:
        config.data.reader = "karpathy"
        config.training.best.update({"val/Avg": 1.0})
    rank = numbers.pop("lora", None)
    parts = {tower: own[:1] if config.loss.sigmoid and tower == "image" else own for tower, own in PARTS.items()}
    for tower, share in numbers.items():
        for part in parts[tower] if rank is None or not share else ():
            if share:
                config.optimizer.multipliers[part] = share
            else:
                config.optimizer.freeze = (*config.optimizer.freeze, part)
    if rank is not None:
        adapted = [own[0] for tower, own in parts.items() if numbers.get(tower, 1)]
        use_lora(config, rank, paths=adapted, freeze=[part for own in parts.values() for part in own])
        shares = {f"lora/{parts[tower][0]}": share for tower, share in numbers.items() if share}
        config.optimizer.multipliers.update(shares)
    if "tiny" in names or TINY_SIGLIP in names:
        shrink(config)
    return config
