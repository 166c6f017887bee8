"""ConText-CIR on a catalogue: photographs of products and a table of their attributes.

    python -m experiments.catalogue --data=FOLDER --tables=styles.csv --attributes=baseColour:colour,...
    python -m experiments.train --config=configs/catalogue.py --config.data.folder=FOLDER --workdir=runs/catalogue

Arguments, joined by commas (configs/catalogue.py:pretrained):
    pretrained       from a CLIP at its own size, for an accelerator: --config.model.pretrained=FOLDER or hub id
    pictogram_recipe configs/pictograms.py:demo on these data, as the figure to compare with
    no_consistency   without the consistency loss
    sum, image, text baselines: the query is the sum of the two embeddings, or one of them; same towers
    tiny             12 steps of a model that trains in seconds, for tests; it learns nothing

Without an argument small towers start from nothing at 64 pixels, as those of configs/pictograms.py do: its docstring
says where that differs from the paper. Pictures are squashed to a square and not cropped, since a product fills its
picture; each reference comes with four changes of its attributes, so that other colours of one article are negatives.

No figure of this recipe has been measured yet.
"""

from configs import pictograms
from configs.base import shrink

ARGUMENTS = ("pretrained", "pictogram_recipe", "no_consistency", "sum", "image", "text", "tiny")
FOLDER = "data/catalogue"


def get_config(argument: str = ""):
    """Returns the recipe, changed by the arguments that the module's docstring lists."""
    names = list(filter(None, argument.split(",")))
    for name in names:
        if name not in ARGUMENTS:
            raise ValueError(f"configs/catalogue.py has no argument '{name}'; it has {', '.join(ARGUMENTS)}.")
    config = pictograms.get_config("demo")
    config.data.reader = "catalogue"
    config.data.folder = FOLDER
    if "pictogram_recipe" not in names:
        config.data.text_length = 20
        config.data.caption_length = 28
        config.data.vocabulary = 2000
        config.model.vision.fit = "squash"
        config.training.steps, config.loss.lead_steps = 1500, 200
        config.training.evaluate_every = config.training.steps
    for name in names:
        if name == "pretrained":
            _start_from_clip(config)
        elif name == "no_consistency":
            config.loss.weights.consistency = 0.0
        elif name == "tiny":
            shrink(config)
        elif name != "pictogram_recipe":
            config.model.query = name
    return config


def _start_from_clip(config) -> None:
    """Trains a CLIP at its own size with the paper's optimizer."""
    config.data.vocabulary = 0
    config.data.text_length = config.data.caption_length = 77
    config.data.batch_size = 64
    config.model.dtype = "bfloat16"
    config.model.fusion_heads = 8
    config.model.vision.fit = "crop"
    config.loss.lead_steps = 0
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-5
    config.optimizer.warmup_steps = 500
    config.training.steps = 10_000
    config.training.evaluate_every = config.training.checkpoint_every = 2000
