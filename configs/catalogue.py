"""ConText-CIR on a catalogue: photographs of products and a table of their attributes.

    python -m experiments.catalogue --data=FOLDER --tables=styles.csv --attributes=baseColour:colour,...
    python -m experiments.train --config=configs/catalogue.py --config.data.folder=FOLDER --workdir=runs/catalogue

Arguments, joined by commas (configs/catalogue.py:pretrained):
    pretrained       from a CLIP at its own size, for an accelerator: --config.model.pretrained=FOLDER or hub id
    no_consistency   without the consistency loss
    sum, image, text baselines: the query is the sum of the two embeddings, or one of them; same towers
    tiny             12 steps of a model that trains in seconds, for tests; it learns nothing

Without an argument small towers start from nothing at 64 pixels, as those of configs/pictograms.py do: its docstring
says where that differs from the paper. Pictures are squashed to a square and not cropped, since a product fills its
picture; each reference comes with four changes of its attributes, so that other colours of one article are negatives.

Pictures are cropped and flipped a little, and pictures with the same caption are never negatives of each other.
Expected on the colour changes of "Fashion Product Images (Small)": mAP@10 30.6, Rs@1 75.1 (seed 0, 1,016 s on two
shared CPU cores, 2026-11-29; docs/results/photographs.md).
"""

from configs.base import base, shrink, train_small_towers

ARGUMENTS = ("pretrained", "no_consistency", "sum", "image", "text", "tiny")


def get_config(argument: str = ""):
    """Returns the recipe, changed by the arguments that the module's docstring lists."""
    config = _recipe()
    for name in filter(None, argument.split(",")):
        if name not in ARGUMENTS:
            raise ValueError(f"configs/catalogue.py has no argument '{name}'; it has {', '.join(ARGUMENTS)}.")
        if name == "pretrained":
            _start_from_clip(config)
        elif name == "no_consistency":
            config.loss.weights.consistency = 0.0
        elif name == "tiny":
            shrink(config)
        else:
            config.model.query = name
    return config


def _recipe():
    config = base()
    train_small_towers(config)
    config.data.reader = "catalogue"
    config.data.folder = "data/catalogue"
    config.data.batch_size = 32
    config.data.text_length = 16
    config.data.caption_length = 14
    config.data.phrases_per_text = 0.25
    config.data.vocabulary = 2000
    config.data.augment = "light"
    config.model.vision.fit = "squash"
    config.loss.mask_false_negatives = True
    config.loss.weights.captions = 1.0
    config.training.steps = 2100
    config.training.checkpoint_every = 700
    config.training.evaluate_every = config.training.steps
    return config


def _start_from_clip(config) -> None:
    """Trains a CLIP at its own size, with the paper's model and optimizer."""
    paper = base()
    paper.data.update(
        {"reader": config.data.reader, "folder": config.data.folder, "modifications": 4, "batch_size": 64}
    )
    paper.model.dtype = "bfloat16"
    paper.model.vision.fit = "crop"
    paper.loss.learned_temperature = True
    paper.loss.mask_false_negatives = True
    paper.training.steps = 10_000
    config.update(paper)
