"""ContextBLIP from scratch on the embedded pictogram scenes, on two CPU cores: one text picks one of ten pictures.

    python -m experiments.generate --target=data/pictograms
    python -m experiments.stages --config=configs/pictogram_sets.py --workdir=runs/sets [--start=runs/pictograms]

Arguments: the stage, 1 (captions), 2a (candidate sets) or 2b (their cached features).
"""

from configs.base import base

STAGES = ("1", "2a", "2b")
ARGUMENTS = (*STAGES,)


def get_config(argument: str = "1"):
    """A stage of the recipe, changed by the arguments that the module's docstring lists."""
    names = argument.split(",")
    for name in names:
        if name not in ARGUMENTS:
            raise ValueError(f"configs/pictogram_sets.py has no argument '{name}'; it has {', '.join(ARGUMENTS)}.")
    config = base("context_blip")
    config.model.variant = "BLIP-S16"
    config.model.decoder_layers, config.model.decoder_heads, config.model.context_heads = 1, 4, 4
    config.model.fused_token = None
    config.model.selection = "both"
    config.data.val_reader, config.data.val_folder = "imagecode", "data/pictograms/imagecode"
    config.data.text_length = 48
    config.data.vocabulary = 800
    config.data.clean = False
    config.data.cache_mb = 1024
    config.loss.learned_temperature = True
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50
    config.optimizer.weight_decay = 0.05
    config.optimizer.decay_vectors = False
    config.training.log_every = 25
    if names[0] == "1":
        config.data.reader, config.data.folder = "cirr_captions", "data/pictograms/cirr"
        config.data.batch_size = 64
        config.loss.weights.update({"contrastive": 1.0, "matching": 1.0, "masking": 1.0})
        steps = 300
    else:
        config.data.reader, config.data.folder = "imagecode", "data/pictograms/imagecode"
        config.data.batch_size = 16
        config.model.masking = "none"
        config.loss.weights.contrastive = 0.5
        steps = 600
    if names[0] == "2b":
        config.data.cached = True
        config.data.batch_size = 64
        config.model.context_layers = 2
        config.optimizer.freeze = ("blip", "adapter", "head", "logit_scale")
        steps = 500
    config.training.steps = steps
    config.training.checkpoint_every = config.training.evaluate_every = steps
    return config
