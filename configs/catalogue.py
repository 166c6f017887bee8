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

No figure of this recipe has been measured yet. To compare with the recipe of the pictograms on the same data:
--config=configs/pictograms.py:demo --config.data.reader=catalogue --config.data.folder=FOLDER
"""

from configs.base import base, shrink

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
    config.data.reader = "catalogue"
    config.data.folder = "data/catalogue"
    config.data.batch_size = 16
    config.data.modifications = 4
    config.data.text_length = 20
    config.data.caption_length = 28
    config.data.vocabulary = 2000
    config.data.phrases_per_text = 1.0
    config.data.phrase_length = 8
    config.data.cache_mb = 1024

    config.model.variant = "S16"
    config.model.vision.fit = "squash"
    config.model.fusion_layers = 2
    config.model.fusion_heads = 4
    config.model.fusion_activation = "quick_gelu"
    config.model.fusion_self_attention = True
    config.model.fusion_head = "gallery"

    config.loss.weights.captions = 0.2
    config.loss.lead_steps = 200
    config.loss.learned_temperature = True

    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 100
    config.optimizer.weight_decay = 0.05
    config.optimizer.decay_vectors = False

    config.training.steps = 1500
    config.training.log_every = 50
    config.training.checkpoint_every = 500
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
    paper.training.steps = 10_000
    config.update(paper)
