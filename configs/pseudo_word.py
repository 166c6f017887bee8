"""A pseudo-word for each picture on a frozen CLIP (LinCIR, arXiv 2312.01998; SEARLE, arXiv 2303.15247): texts alone.

    python -m experiments.train --config=configs/pseudo_word.py:L14 --config.data.folder=CAPTIONS \
      --config.data.evaluations.circo.folder=CIRCO --workdir=runs/pseudo_word

    B32, B16 (default), L14, H14   the CLIP, from the hub, or from --config.model.pretrained=FOLDER
    tiny              12 steps of a model that trains in seconds, from nothing, for tests

--config.data.folder is a folder of captions (docs/reference/datasets/captions.md), whose pictures are not looked at, or
with --config.data.reader=NAME one of composed queries, whose targets' captions are taken. A network of three layers
learns to make of a caption's embedding the word that stands for its noun phrases; no triplet is seen. A query is then
the text "a photo of * that {}", with the reference picture's word for the star.

Recalled, not verified: AdamW 1e-4 with decay 0.01, batches of 512, dropout 0.5, the noise on the embedding (in all at
most of its own length; there is none at 0), and the squared distance as the loss. The codes are CC BY-NC and were not
opened.
"""

from configs.base import base, evaluation, shrink
from configs.towers import CLIPS, start_from


def get_config(argument: str = ""):
    """Returns the recipe of a size."""
    names = list(filter(None, argument.split(",")))
    if odd := [name for name in names if name not in (*CLIPS, "tiny")]:
        known = ", ".join((*CLIPS, "tiny"))
        raise ValueError(f"configs/pseudo_word.py has no argument '{odd[0]}'; expected one of {known}.")
    config, size = base(), next((name for name in names if name in CLIPS), "B16")
    if "tiny" not in names:
        start_from(config, size)
        config.model.dtype = "bfloat16"
    config.model.query, config.model.template = "pseudo_word", "a photo of * that {}"
    config.data.reader = "captions"
    config.data.batch_size = 512
    config.data.evaluations.update({"circo": evaluation(), "cirr": evaluation()})
    config.training.best.update({"circo/val/mAP@10": 1.0})
    config.loss.weights.update({"contrastive": 0.0, "consistency": 0.0, "pseudo_word": 1.0})
    config.optimizer.update({"learning_rate": 1e-4, "schedule": "exponential", "warmup_steps": 0, "decay_factor": 1.0})
    config.optimizer.update({"beta2": 0.999, "freeze": ("clip",)})
    config.training.update({"steps": 20_000, "checkpoint_every": 1000, "evaluate_every": 1000})
    if "tiny" in names:
        shrink(config)
    return config
