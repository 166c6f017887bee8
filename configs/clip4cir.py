"""CLIP4Cir from a pretrained CLIP (Baldrati et al., ACM TOMM 2023, arXiv 2308.11485): two stages.

    python -m experiments.train --config=configs/clip4cir.py:finetune,B16 --config.data.folder=CIRR --workdir=runs/one
    python -m experiments.train --config=configs/clip4cir.py:combiner,B16 --config.data.folder=CIRR --workdir=runs/two \
      --config.model.start=runs/one

    finetune (default)   both encoders, by the sum of their features as they are; one direction, temperature 0.01
    combiner             the Combiner on the features of model.start, which are computed once and kept in the workdir
    B32, B16 (default), L14   the CLIP, from the hub, or from --config.model.pretrained=FOLDER
    cirr (default), fashion_iq   the data, and what the best checkpoint is chosen by: the mean of CIRR's seven metrics,
                         or of Fashion-IQ's R@10 and R@50
    squarepad, crop      the shape of pictures, instead of the published targetpad
    tiny                 12 steps of a model that trains in seconds, from nothing, for tests

As published: AdamW 2e-6 with decay 0.01 in batches of 128 for 100 epochs, and Adam 2e-5 in batches of 4,096 for 300,
both without a schedule; steps are those of CIRR's 28,225 or Fashion-IQ's 18,000 triplets. Not as published: the
authors' CLIP is an RN50x4, whose modified ResNet is not read here; they compute in float16; and a Fashion-IQ text is
always both captions, where theirs is one of four forms at random (--config.data.augment changes pictures alone).

Published on CIRR's test split, R@1 / R@5 / R@10 / R@50, with that RN50x4 (never reproduced here): 44.82 / 77.04 /
86.65 / 97.90.
"""

from configs.base import base, evaluation, shrink
from configs.towers import start_from

CHOICES = {
    "stage": ("finetune", "combiner"), "size": ("B16", "B32", "L14", "tiny"), "data": ("cirr", "fashion_iq"),
    "fit": ("targetpad", "squarepad", "crop"),
}  # fmt: skip
RECORDS = {"cirr": 28_225, "fashion_iq": 18_000}


def get_config(argument: str = ""):
    """Returns the recipe of a stage, a size, a data set and a shape of pictures."""
    chosen = {kind: names[0] for kind, names in CHOICES.items()}
    for name in filter(None, argument.split(",")):
        kind = next((kind for kind, names in CHOICES.items() if name in names), "")
        if not kind:
            known = ", ".join(name for names in CHOICES.values() for name in names)
            raise ValueError(f"configs/clip4cir.py has no argument '{name}'; expected some of {known}.")
        chosen[kind] = name
    config = base()
    if chosen["size"] != "tiny":
        start_from(config, chosen["size"])
        config.model.dtype = "bfloat16"
    config.model.vision.fit = chosen["fit"]
    config.loss.weights.consistency = 0.0
    config.loss.update({"temperature": 0.01, "one_direction": True, "reference_negatives": False})
    config.data.reader = chosen["data"]
    _evaluate(config, chosen["data"])
    _train(config, is_combiner=chosen["stage"] == "combiner", records=RECORDS[chosen["data"]])
    if chosen["size"] == "tiny":
        shrink(config)
    return config


def _train(config, *, is_combiner: bool, records: int) -> None:
    config.optimizer.update({"schedule": "exponential", "warmup_steps": 0, "decay_factor": 1.0})  # a constant rate
    config.optimizer.update({"beta1": 0.9, "beta2": 0.999, "clip_norm": 1e6})  # nothing is clipped
    config.data.batch_size, epochs = (4096, 300) if is_combiner else (128, 100)
    if is_combiner:
        config.model.query, config.data.cached = "combiner", True
        config.optimizer.update({"name": "adam", "learning_rate": 2e-5, "epsilon": 1e-8, "weight_decay": 0.0})
        config.optimizer.freeze = ("clip",)
    else:
        config.model.query = "raw_sum"
        config.optimizer.update({"learning_rate": 2e-6, "epsilon": 1e-7})
    config.training.steps = epochs * records // config.data.batch_size
    config.training.checkpoint_every = config.training.evaluate_every = max(config.training.steps // epochs, 200)


def _evaluate(config, data: str) -> None:
    if data == "fashion_iq":
        config.data.evaluations.update({"fashion_iq_original": evaluation()})
        config.training.best.update({"fashion_iq_original/val/Avg": 1.0})
        return
    config.data.evaluations.update({"cirr": evaluation()})
    metrics = [f"R@{k}" for k in (1, 5, 10, 50)] + [f"Rs@{k}" for k in (1, 2, 3)]
    config.training.best.update({f"cirr/val/{metric}": 1 / 7 for metric in metrics})
