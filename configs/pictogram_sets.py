"""ContextBLIP from scratch on the embedded pictogram scenes, on two CPU cores: one text picks one of ten pictures.

    python -m experiments.generate --target=data/pictograms
    python -m experiments.stages --config=configs/pictogram_sets.py --workdir=runs/sets --start=runs/pictograms

The stages, each an argument:

    1         captions: matching, masking and BLIP's contrastive loss; the image tower starts from --start, a run of
              configs/pictograms.py, if one is given
    pairs     short statements, true of one picture of a set and false of another: is each true of each?
    cosine    candidate sets, by the base score alone: the probability that each of a text's propositions is true, by
              the cosine of it and what it reads of a picture's tokens
    2a        candidate sets: the base score plus a Linear of the fused state, which begins as nothing
    2b        cached features: the inter-context encoder alone trains

Further arguments, after the stage's:

    no_adapter, no_masking
    dual      a plain dual encoder (the cosine of whole texts), trained as long as all stages (with --stages=1,cosine)
    demo      shorter stages, for `make demo` (with --stages=pairs,cosine, the two that learn)
    tiny      12 steps of a model that trains in seconds, for tests

Where it differs from the paper, because small towers start from nothing here: nothing is frozen in stages 1 and 2a; the
contrastive loss stays on; the score begins with that of a dual encoder, which reads a text in propositions; two stages
between 1 and 2a; Muon and one cosine a stage.
Accuracy and times: see the README.
Memory and bytes on a mesh: python -m experiments.plan --config=configs/pictogram_sets.py --mesh=data:1
"""

from configs.base import base, shrink

STAGES = ("1", "pairs", "cosine", "2a", "2b")
DUAL_STAGES = ("1", "cosine")
ARGUMENTS = (*STAGES, "no_adapter", "no_masking", "dual", "demo", "tiny")


def get_config(argument: str = "1"):
    """Returns a stage of the recipe, changed by the arguments that the module's docstring lists."""
    stage, *others = argument.split(",")
    for name in (stage, *others):
        if name not in ARGUMENTS or (name == stage) != (name in STAGES):
            raise ValueError(
                f"configs/pictogram_sets.py got '{name}'; expected a stage ({', '.join(STAGES)}), then no_adapter, "
                "no_masking, dual, demo or tiny."
            )
    if "dual" in others and stage not in DUAL_STAGES:
        raise ValueError(f"configs/pictogram_sets.py got 'dual' with {stage}; it has {', '.join(DUAL_STAGES)}.")
    config = _shared()
    {"1": _captions, "pairs": _pairs, "cosine": _cosine, "2a": _sets, "2b": _features}[stage](config)
    if "no_adapter" in others:
        config.model.adapter = "none"
        config.optimizer.freeze = tuple(name for name in config.optimizer.freeze if name != "adapter")
    if "no_masking" in others:
        config.model.masking, config.loss.weights.masking = "none", 0.0
    if "dual" in others:
        config.model.propositions, config.data.propositions, config.model.pooling_heads = False, 0, 0
        if stage == "1":
            config.loss.weights.update({"matching": 0.0, "masking": 0.0})
        if stage == "cosine":
            config.training.steps = 1200  # as long as all stages of the recipe: a step is shorter
    if "demo" in others:
        config.training.steps = min(config.training.steps, 240)
    config.training.checkpoint_every = config.training.steps
    config.training.evaluate_every = 0 if "demo" in others else config.training.steps
    if "tiny" in others:
        shrink(config)
    return config


def _shared():
    config = base("context_blip")
    config.data.reader, config.data.folder = "imagecode", "data/pictograms/imagecode"
    config.data.val_reader, config.data.val_folder = "imagecode", "data/pictograms/imagecode"
    config.data.batch_size = 16
    config.data.text_length = 48
    config.data.propositions, config.data.proposition_length = 4, 20
    config.data.vocabulary = 800
    config.data.clean = False
    config.data.cache_mb = 1024

    config.model.variant = "BLIP-S16"
    config.model.decoder_layers, config.model.decoder_heads, config.model.context_heads = 1, 4, 4
    config.model.fused_token = None
    config.model.masking = "none"
    config.model.selection = "both"
    config.model.propositions = True
    config.model.pooling_heads, config.model.projection = 4, 256
    config.loss.learned_temperature = True
    config.loss.weights.contrastive = 0.5

    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50
    config.optimizer.weight_decay = 0.05
    config.optimizer.decay_vectors = False
    config.training.log_every = 25
    return config


def _captions(config) -> None:
    config.data.reader, config.data.folder = "cirr_captions", "data/pictograms/cirr"
    config.data.batch_size = 64
    config.model.masking = "pixels"
    config.loss.weights.contrastive = 1.0
    config.training.steps = 10


def _pairs(config) -> None:
    config.data.train_split = "train_simple"
    config.data.propositions = 1  # a statement is one; whole texts, read so, are evaluated low after this stage
    config.data.descriptions = 20
    config.model.selection = "itc"
    config.loss.weights.update({"truth": 1.0, "selection": 0.0, "contrastive": 0.0})
    config.training.steps = 290


def _cosine(config) -> None:
    config.data.batch_size = 8
    config.data.descriptions = 10
    config.model.selection = "itc"
    config.loss.weights.contrastive = 1.0
    config.training.steps = 290


def _sets(config) -> None:
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 10
    config.training.steps = 15


def _features(config) -> None:
    config.data.cached = True
    config.data.records = 4000
    config.data.batch_size = 64
    config.model.context_layers = 2
    config.optimizer.learning_rate = 1e-3
    config.optimizer.freeze = ("blip", "adapter", "head", "pooling", "logit_scale", "truth_bias")
    config.training.steps = 150
