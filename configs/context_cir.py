"""ConText-CIR as published (CVPR 2025), from a pretrained CLIP.

    python -m experiments.train --config=configs/context_cir.py:L14 --config.data.folder=CIRR \\
      --config.data.evaluations.circo.folder=CIRCO --workdir=runs/cirr_L14

Arguments, joined by commas: a size, a mixture, a schedule and options, such as L14,aggregated,modern,weight0.8.

    B32, B16 (default), L14, H14   the CLIP, from the hub, or from --config.model.pretrained=FOLDER
    SigLIP-B16, SigLIP-L16, SigLIP-So400m14, SigLIP2-B16, ...   a SigLIP's towers, or a SigLIP 2's of fixed resolution
    tiny, tiny_siglip   12 steps of a model that trains in seconds, from nothing, for tests
    cirr (default)  CIRR's triplets
    cirr_r          and the rewritten texts of CIRR's pairs, CIRR_R, which stand in CIRR's folder
    lasco           and LaSCo:      --config.data.sources.lasco.folder=LASCO
    aggregated      and Hotel-CIR:  --config.data.sources.hotel_cir.folder=HOTELS
    zero_shot       CIRR_R alone: the texts are a language model's, and none of CIRR's own is seen; its pictures are
    fashion_iq      Fashion-IQ: --config.data.folder=FASHIONIQ; the best by its own val: the mean of R@10 and R@50, of
                    three categories, each in the gallery of its split file
    A+B             any of the sets cirr, cirr_r, lasco, hotel_cir, fashion_iq, manifest (a folder of one's own)
    published (default), modern    the schedule, see below
    weight0.8       the weight of the consistency loss, any number; 0.08 is the paper's, 0 leaves it out
    normalized      the consistency loss on maps that are divided by their sums over the patches
    no_pronouns     phrases such as "i" and "this one" are no concepts
    clip0.1         CLIP's share of the learning rate; 1 is the paper's
    lora8           instead of CLIP, adapters of this rank of its blocks' matrices are trained (LoRA, arXiv 2106.09685),
                    at 1e-4, beside the new parts; see docs/guides/lora.md

A mixture is uniform over all its records, as published; --config.data.sources.NAME.weight=2 shows a set's twice an
epoch, 0 leaves it out. --config.data.folder is CIRR's folder: a source without a folder of its own is looked for there.

published: lambda 0.08, temperature 0.07, references as negatives, AdamW 1e-5 with 500 steps of warm-up and warm
restarts from 2,500 steps, decay 0.01 on every parameter, 35,000 steps of 256 triplets, no augmentation. The paper has
256 a device, and for H14 64 on each of four: --config.data.batch_size is of all devices together. CLIP trains at a
fraction of the rate (the paper's backbone_lr_scale) by the argument clip0.1. Every 2,000 steps CIRR
and CIRCO are evaluated; the best of these checkpoints, by half CIRR's R@5 and half CIRCO's mAP@10, is kept beside the
newest, and is what `contextjax.load` and what evaluates, searches and exports take (experiments.evaluate
--checkpoint=newest takes the other). Without CIRCO's folder it is the best by CIRR alone, which is said.

modern: what is usual today; unmeasured. One cosine instead of restarts, the last of which has not come down to zero
when the run ends. 2,000 steps of warm-up: the first steps of new blocks disturb trained
towers most. 1e-4 for the new parts, which start from nothing, and a tenth of it for CLIP, which keeps the published
rate. No decay on biases, norms and scalars, where it only pulls scales to zero. A learned temperature from 0.07, at a
rate of 1e-3. In-batch copies of the target are no negatives: in a batch of 256 of CIRR's samples, about 12 % of the
targets are another sample's reference and 9 % another's target.

With a SigLIP's towers all else is the same, the InfoNCE loss too (--config.loss.sigmoid=True: SigLIP's own). Texts
have 64 tokens (SigLIP-So400m14: 16), and the image tower has no class token. --config.model.query=sum trains the plain
sum of both embeddings.

Accelerators compute in bfloat16; on a CPU add --config.model.dtype=float32.

Published on CIRR's test split, R@1 / R@5 / Rs@1 (never reproduced here), by the aggregated mixture: ViT-B 49.8 / 81.5 /
76.6 (B32 or B16 is not said), L14 52.7 / 83.3 / 80.3, H14 55.2 / 84.9 / 83.0. H14's R@1 by mixture: cirr 45.3, cirr_r
48.5, lasco 53.1, aggregated 55.2. There is no published figure for Fashion-IQ.
Memory of a device at the peak, for 256 triplets on 8 devices, as planned (upper bounds, never measured): B32 9.8 GB,
B16 24, L14 76, H14 132, or 29 with --config.model.vision.remat=full --config.model.text.remat=full. Other meshes and
batches, and what fits which chip: python -m experiments.plan --config=configs/context_cir.py:H14 --mesh=data:8, and
docs/results/scaling.md.
"""

from collections.abc import Sequence

from configs.base import base, evaluation, numbered, shrink, source, use_lora
from configs.towers import TINY_SIGLIP, TOWERS, start_from

PRETRAINED = TOWERS
SETS = ("cirr", "cirr_r", "lasco", "hotel_cir", "fashion_iq", "manifest")
MIXTURES = {
    "cirr": "cirr",
    "cirr_r": "cirr+cirr_r",
    "lasco": "cirr+cirr_r+lasco",
    "aggregated": "cirr+cirr_r+lasco+hotel_cir",
    "zero_shot": "cirr_r",
    "fashion_iq": "fashion_iq",
}
SIZES = (*PRETRAINED, "tiny", TINY_SIGLIP)
SCHEDULES = ("published", "modern")
OPTIONS, NUMBERED = ("normalized", "no_pronouns"), ("weight", "clip", "lora")


def get_config(argument: str = ""):
    """Returns the recipe of the arguments that the module's docstring lists."""
    names, numbers = numbered(argument, NUMBERED)
    size, sets, schedule = _parse([name for name in names if name not in OPTIONS])
    config = base()
    if size != "tiny":
        start_from(config, size)
    config.model.dtype = "bfloat16"
    config.optimizer.multipliers.clip = 1.0
    config.training.diagnose_every = 500
    if sets == ["fashion_iq"]:
        config.data.reader = "fashion_iq"
        config.data.evaluations.update({"fashion_iq_original": evaluation()})
        config.training.best.update({"fashion_iq_original/val/Avg": 1.0})
    else:
        config.data.evaluations.update({"cirr": evaluation(), "circo": evaluation()})
        config.training.best.update({"cirr/val/R@5": 0.5, "circo/val/mAP@10": 0.5})
        if sets != ["cirr"]:
            config.data.sources.update({name: source() for name in sets})
    if schedule == "modern":
        _modern(config)
    if size in ("tiny", TINY_SIGLIP):
        shrink(config)
    config.loss.normalize_maps = "normalized" in names
    config.data.pronouns = "no_pronouns" not in names
    if "weight" in numbers:
        config.loss.weights.consistency = numbers["weight"]
    if "clip" in numbers:
        config.optimizer.multipliers.clip = numbers["clip"]
    if "lora" in numbers:
        if "clip" in numbers:
            raise ValueError("configs/context_cir.py got 'clip' with 'lora', under which CLIP is frozen; give one.")
        towers, heads = ("clip/vision", "clip/text"), ("clip/visual_projection", "clip/text_projection")
        use_lora(config, numbers["lora"], paths=towers, freeze=(*towers, *heads))
    return config


def _parse(names: Sequence[str]) -> tuple[str, list[str], str]:
    chosen = {"size": "B16", "mixture": "cirr", "schedule": "published"}
    given = set()
    for name in names:
        is_mixture = name in MIXTURES or all(part in SETS for part in name.split("+"))
        kind = "size" if name in SIZES else "schedule" if name in SCHEDULES else "mixture" if is_mixture else ""
        if not kind:
            known = ", ".join((*SIZES, *MIXTURES, *SCHEDULES, *OPTIONS, *(f"{x}NUMBER" for x in NUMBERED)))
            raise ValueError(f"configs/context_cir.py has no argument '{name}'; expected some of {known}.")
        if kind in given:
            raise ValueError(f"configs/context_cir.py got a second {kind}, '{name}'; give one.")
        given.add(kind)
        chosen[kind] = name
    sets = MIXTURES.get(chosen["mixture"], chosen["mixture"]).split("+")
    return chosen["size"], list(dict.fromkeys(sets)), chosen["schedule"]


def _modern(config) -> None:
    config.loss.learned_temperature = True
    config.loss.mask_false_negatives = True
    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 2000
    config.optimizer.decay_vectors = False
    config.optimizer.multipliers.update({"clip": 0.1, "clip/logit_scale": 100.0})  # which multiply: 1e-3
