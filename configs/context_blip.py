"""ContextBLIP as published (Findings of ACL 2024), from BLIP weights to ImageCoDe, in three stages.

    python -m experiments.stages --config=configs/context_blip.py --workdir=runs/context_blip \\
      --set=model.pretrained=BLIP --set=1:data.folder=CAPTIONS \\
      --set=2a:data.folder=IMAGECODE --set=2b:data.folder=IMAGECODE

or a stage at a time, `experiments.train --config=configs/context_blip.py:2a --config.model.start=RUN ...`. Arguments:

    1         captions (COCO, Visual Genome: configs' reader "captions"): matching and text-guided masking, BLIP frozen
    2a        ImageCoDe's sets: everything trains with a Linear head
    2b        their cached features: the inter-context encoder alone trains
    summary   the summary form, which a summary of the paper in circulation describes: InfoNCE over the candidates'
              adapted embeddings, masks predicted from patch features, convolutions in the adapter; 2b compares the text
              with what the inter-context encoder adds to these embeddings
    published in 2a, the published augmentation, for every candidate by itself (a crop of 20 to 100 % of the area, flip,
              RandAugment(2, 5)), instead of one crop for a set
    no_adapter  BLIP fine-tuned, without adapter (--stages=2a, or 2a,2b: with the inter-context encoder)
    no_context  2b without the encoder: the same head, data and steps
    lora8     in 2a, adapters of this rank of BLIP's blocks are trained instead of BLIP, at 1e-4 (LoRA, arXiv
              2106.09685); 1 and 2b train nothing of BLIP anyway; see docs/guides/lora.md
    tiny      12 steps of a model that trains in seconds, from nothing, for tests

BLIP is a folder or hub id, "Salesforce/blip-itm-base-coco" or the original release as safetensors
(`experiments.convert --allow_pickle`). Accelerators compute in bfloat16; on a CPU add --set=model.dtype=float32.

Stage 1: 4 x 256 captions, AdamW 3e-4, 3,000 steps of warm-up, x 0.9 an epoch, 20 epochs. Stage 2a: 36 descriptions,
Adam with L2 0.2, 2e-6 for the towers and 1e-4 for the head, x 0.95 an epoch, 40 epochs; the published loop sums the
gradients of its 36, hence the weight of 36. Stage 2b: Adam 2e-6, 20 epochs. The epochs are in steps, for 5.1 M captions
(COCO 567 k, Visual Genome 4.5 M rows: not counted here) and ImageCoDe's 16,594 descriptions.

Published on ImageCoDe's validation split, read from the names of the authors' checkpoints (never reproduced here):
zero-shot 31.06, 2a 37.19, 2b 38.49 to 38.62.
Memory of a device at the peak, for stage 1's 1,024 captions on 8 devices, as planned (an upper bound, never measured):
35 GB. Other stages, meshes and batches, and what fits which chip:
python -m experiments.plan --config=configs/context_blip.py:1 --mesh=data:8 (stage 2a has 36 descriptions: data:4).
"""

from configs.base import base, numbered, shrink, use_lora

STAGES = ("1", "2a", "2b")
OTHERS = ("summary", "published", "no_adapter", "no_context", "tiny")
ARGUMENTS = (*STAGES, *OTHERS)
CAPTIONS, DESCRIPTIONS = 5_100_000, 16_594


def get_config(argument: str = "1"):
    """Returns a stage of the published recipe, changed by the arguments that the module's docstring lists."""
    names, numbers = numbered(argument, ("lora",))
    stage, *others = names or [""]
    for name in (stage, *others):
        if name not in ARGUMENTS or (name == stage) != (name in STAGES):
            raise ValueError(
                f"configs/context_blip.py got '{name}'; expected a stage ({', '.join(STAGES)}), then some of "
                f"{', '.join(OTHERS)}, loraNUMBER."
            )
    without = {"no_adapter", "no_context"}.intersection(others)
    if stage == "1" and "no_adapter" in others:
        raise ValueError(
            "configs/context_blip.py got 'no_adapter' with 1, which trains the adapter; begin with 2a: --stages=2a,2b."
        )
    if without and "summary" in others:
        raise ValueError(
            f"configs/context_blip.py got 'summary' with '{without.pop()}', without which nothing of that form is left "
            "to train; give one of the two."
        )
    config = base("context_blip")
    config.model.pretrained = "Salesforce/blip-itm-base-coco"
    config.model.vision.taps = (3, 6, 9, 12)
    config.model.vision.image_size = 224
    config.model.dtype = "bfloat16"
    config.data.text_length = 30
    if stage == "1":
        _stage_1(config)
    else:
        _stage_2(config, cached=stage == "2b")
    if "summary" in others:
        config.model.adapter = "convolutions"
        config.model.masking = "attended" if stage == "1" else "none"
        if stage != "1":
            config.model.selection = "adapted"
        if stage == "2b":
            config.optimizer.freeze = ("blip", "adapter", "logit_scale")
    if "no_adapter" in others:
        config.model.adapter = "none"
        config.optimizer.freeze = tuple(name for name in config.optimizer.freeze if name != "adapter")
        config.optimizer.multipliers = {
            name: x for name, x in config.optimizer.multipliers.items() if name != "adapter"
        }
    if "no_context" in others and stage == "2b":
        config.model.context_layers = 0
        config.optimizer.freeze = tuple(name for name in config.optimizer.freeze if name != "head")
    if "published" in others and stage == "2a":
        config.data.augment = "published"
    if "lora" in numbers and stage == "2a":
        use_lora(config, numbers["lora"], paths=("blip/vision", "blip/text"), freeze=("blip",))
    if "tiny" in others:
        shrink(config)
    return config


def _stage_1(config) -> None:
    config.data.reader = "captions"
    config.data.batch_size = 1024
    config.data.augment = "published"
    config.optimizer.learning_rate = 3e-4
    config.optimizer.schedule = "exponential"
    config.optimizer.warmup_steps = 3000
    config.optimizer.decay_period = CAPTIONS // 1024
    config.optimizer.decay_factor = 0.9
    config.optimizer.weight_decay = 0.05
    config.optimizer.beta2 = 0.999
    config.optimizer.freeze = ("blip",)
    config.training.steps = 20 * CAPTIONS // 1024


def _stage_2(config, *, cached: bool) -> None:
    config.data.reader = "imagecode"
    config.data.batch_size = 36
    config.data.augment = "none" if cached else "set"
    config.data.cached = cached
    config.model.masking, config.model.selection = "none", "head"
    config.loss.weights.selection = 36.0
    config.optimizer.name = "adam"
    config.optimizer.epsilon = 1e-6
    config.optimizer.weight_decay = 0.2
    config.optimizer.warmup_steps = 0
    config.optimizer.clip_norm = 1e9  # none in the published loop
    config.optimizer.schedule = "exponential"
    config.optimizer.decay_period = DESCRIPTIONS // 36
    if cached:
        config.model.context_layers = 2
        config.optimizer.learning_rate = 2e-6
        config.optimizer.decay_factor = 1.0
        config.optimizer.freeze = ("blip", "adapter", "head")
        config.training.steps = 20 * DESCRIPTIONS // 36
    else:
        config.optimizer.learning_rate = 1e-4
        config.optimizer.multipliers.update({"blip": 0.02, "adapter": 0.02})
        config.optimizer.decay_factor = 0.95
        config.training.steps = 40 * DESCRIPTIONS // 36
