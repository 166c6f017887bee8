"""ConText-CIR from scratch on the embedded pictogram scenes, on two CPU cores.

python -m experiments.train --config=configs/pictograms.py --workdir=runs/pictograms
"""

from configs.base import base


def get_config(argument: str = ""):
    """The recipe. `argument` is for later use and must be empty."""
    config = base()
    config.data.folder = "data/pictograms/cirr"
    config.data.batch_size = 16
    config.data.modifications = 4
    config.data.text_length = 28
    config.data.caption_length = 36
    config.data.vocabulary = 600
    config.data.phrases_per_text = 1.0
    config.data.phrase_length = 8
    config.data.cache_mb = 1024

    config.model.variant = "S16"
    config.model.fusion_layers = 2
    config.model.fusion_heads = 4
    config.model.fusion_activation = "quick_gelu"
    config.model.fusion_self_attention = True

    config.loss.weights.captions = 0.2
    config.loss.lead_steps = 700
    config.loss.learned_temperature = True

    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 100
    config.optimizer.weight_decay = 0.05
    config.optimizer.decay_vectors = False

    config.training.steps = 2800
    config.training.log_every = 50
    config.training.checkpoint_every = 700
    config.training.evaluate_every = 1400
    return config
