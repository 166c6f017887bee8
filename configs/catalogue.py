"""ConText-CIR on a catalogue: photographs of products and a table of their attributes.

    python -m experiments.catalogue --data=FOLDER --tables=styles.csv --attributes=baseColour:colour,...
    python -m experiments.train --config=configs/catalogue.py --config.data.folder=FOLDER --workdir=runs/catalogue

Arguments, joined by commas (configs/catalogue.py:pretrained):
    pretrained       from a CLIP at its own size, for an accelerator: --config.model.pretrained=FOLDER or hub id
    no_consistency   without the consistency loss
    sum, combiner, image, text
                     baselines: the query is the sum of the two embeddings, CLIP4Cir's Combiner of the two features, or
                     one of the embeddings; same towers
    tiny             12 steps of a model that trains in seconds, for tests; it learns nothing

Without an argument small towers start from nothing at 64 pixels, as those of configs/pictograms.py do: its docstring
says where that differs from the paper. Here the image tower has eight blocks, the text tower and the fusion have one;
captions do not lead; the learning rate is 5e-3; pronouns are no phrases. Pictures are squashed to a square, since a
product fills its picture, cropped and flipped a little, and those with the same caption are never negatives of each
other.

Expected on the colour changes of "Fashion Product Images (Small)", mean of three seeds: mAP@10 36.5, Rs@1 76.8 (26 to
29 minutes on one CPU core, 2026-11-30; docs/results/photographs.md).
"""

from configs.base import base, shrink, train_small_towers

QUERIES = ("sum", "combiner", "image", "text")  # in place of the fusion
ARGUMENTS = ("pretrained", "no_consistency", *QUERIES, "tiny")


def get_config(argument: str = ""):
    """Returns the recipe, changed by the arguments that the module's docstring lists."""
    names = list(filter(None, argument.split(",")))
    if odd := [name for name in names if name not in ARGUMENTS]:
        raise ValueError(f"configs/catalogue.py has no argument '{odd[0]}'; it has {', '.join(ARGUMENTS)}.")
    config = _from_clip() if "pretrained" in names else _from_nothing()
    for name in names:
        if name == "no_consistency":
            config.loss.weights.consistency = 0.0
        elif name in QUERIES:
            config.model.query = name
    if "tiny" in names:
        shrink(config)
    return config


def _read_catalogue(config) -> None:
    """Sets what a CLIP and small towers have in common."""
    config.data.reader = "catalogue"
    config.data.folder = "data/catalogue"
    config.data.modifications = 2
    config.data.pronouns = False
    config.loss.mask_false_negatives = True
    config.loss.learned_temperature = True


def _from_nothing():
    config = base()
    train_small_towers(config)
    _read_catalogue(config)
    config.data.batch_size = 48
    config.data.text_length = 16
    config.data.caption_length = 14
    config.data.phrases_per_text = 0.25
    config.data.vocabulary = 2000
    config.data.augment = "light"
    config.model.vision.update({"layers": 8, "fit": "squash"})
    config.model.text.update({"layers": 1})
    config.model.fusion_layers = 1
    config.loss.weights.captions = 1.0
    config.loss.lead_steps = 0
    config.optimizer.learning_rate = 5e-3
    config.training.steps = 4400
    config.training.checkpoint_every = 1100
    config.training.evaluate_every = config.training.steps
    return config


def _from_clip():
    """Trains a CLIP at its own size, with the paper's model and optimizer."""
    config = base()
    _read_catalogue(config)
    config.data.batch_size = 64
    config.model.dtype = "bfloat16"
    config.model.vision.fit = "crop"
    config.training.steps = 10_000
    return config
