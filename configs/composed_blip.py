"""Composed BLIP from BLIP's own weights: its text encoder reads the reference picture (unverified form of CASE).

    python -m experiments.train --config=configs/composed_blip.py:cirr --config.data.folder=CIRR \
      --config.model.pretrained=BLIP --workdir=runs/composed_blip

    cirr (default), lasco, fashion_iq   the data: --config.data.folder is that set's folder. A run on cirr or fashion_iq
                      may begin with one on lasco: --config.model.start=RUN
    reverse           the reverse objective with the weight 0.4: text and target lead back to the reference
    covr              CoVR's loss for the same form: contrastive, with temperature 0.07 (its hard-negative weights are
                      those of configs/covr2.py)
    tiny              12 steps of a model that trains in seconds, from nothing, for tests

CASE (arXiv 2303.09429) published neither code nor weights. What is known of it, and graded in its docs page
(docs/reference/composed_blip.md): BLIP, early fusion of the query picture in the text encoder, an auxiliary reverse
task, LaSCo. The form here is CoVR's published one. Recalled or second-hand are: the frozen picture tower, the Recall@K
surrogate with K of 1 to 16, the reverse token and its weight, and the schedule, which is ChatIR's: AdamW 5e-5, times
0.93 an epoch, batches of 512. So figures of this recipe are no figures of CASE.
"""

from configs.base import base, evaluation, shrink

# Queries, of which an epoch's steps follow: those of training, and of LaSCo all, since its parts were not counted.
DATA = {"cirr": 28_225, "lasco": 389_305, "fashion_iq": 18_000}
OPTIONS = ("reverse", "covr", "tiny")
EPOCHS = {"cirr": 6, "lasco": 3, "fashion_iq": 6}


def get_config(argument: str = ""):
    """Returns the recipe of a data set and of options."""
    names = list(filter(None, argument.split(",")))
    if odd := [name for name in names if name not in (*DATA, *OPTIONS)]:
        raise ValueError(f"configs/composed_blip.py has no argument '{odd[0]}'; it has {', '.join((*DATA, *OPTIONS))}.")
    data = next((name for name in names if name in DATA), "cirr")
    config = base("composed_blip")
    config.model.dtype = "bfloat16"
    config.model.vision.image_size = 384
    config.data.reader = data
    config.data.text_length = 35
    config.data.batch_size = 512
    config.loss.mask_false_negatives = True
    epoch = DATA[data] // config.data.batch_size
    config.optimizer.update({"learning_rate": 5e-5, "schedule": "exponential", "warmup_steps": 0, "beta2": 0.999})
    config.optimizer.update({"decay_factor": 0.93, "decay_period": epoch})
    config.optimizer.freeze = ("blip/vision", "blip/visual_projection", "blip/matching_head", "logit_scale")
    config.training.steps = EPOCHS[data] * epoch
    config.training.checkpoint_every = config.training.evaluate_every = epoch
    _evaluate(config, data)
    if "covr" in names:
        config.loss.weights.update({"contrastive": 1.0, "recall": 0.0})
        config.loss.reference_negatives = False
    if "reverse" in names:
        config.loss.weights.reverse = 0.4
    if "tiny" in names:
        shrink(config)
    return config


def _evaluate(config, data: str) -> None:
    protocol, metric = {"fashion_iq": ("fashion_iq_original", "Avg")}.get(data, (data, "R@5"))
    config.data.evaluations.update({protocol: evaluation()})
    config.training.best.update({f"{protocol}/val/{metric}": 1.0})
