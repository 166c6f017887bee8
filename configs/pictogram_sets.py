"""ContextBLIP from scratch on the embedded pictogram scenes, on two CPU cores: one text picks one of ten pictures.

Two forms. The paper's, on sets of which half of the descriptions compare pictures ("the one with the most dogs"):

    python -m experiments.generate --target=data/pictograms --comparative --train_sets=12000
    python -m experiments.stages --config=configs/pictogram_sets.py --argument=paper --workdir=runs/paper \\
      --start=runs/pictograms

    1         captions: matching with hard negatives, masking, and BLIP's contrastive loss
    pairs     short statements and superlatives about two pictures of a set: which of the two does the fused state's
              score pick?
    few       statements about one of five pictures of a set, and comparisons of five, scored by the fused state and the
              inter-context encoder
    2a        whole descriptions of candidate sets, scored alike, at a third of the learning rate: at the whole one, the
              encoder unlearns which value no other picture has
    2b        cached features: the inter-context encoder alone trains

    paper     the form itself. The image tower is that of --start, a run of configs/pictograms.py, frozen in all stages.
              Text encoder and matching head have no published start here, so they train in stage 1 with the adapter
    no_adapter, convolutions   without the adapter, or with the summary form's
    no_masking, fixed_masks    without the masking loss, or with random masks that a picture keeps, whatever is attended
    no_context                 nothing in place of the encoder in few, 2a and 2b: the same head, data and steps
    2a_longer                  2a without the encoder, for the time that 2a and 2b take; no 2b

Where it differs from the paper, besides: short statements, and comparisons of a few pictures, come before descriptions;
the inter-context encoder trains in few and 2a, too, so that the fused state holds what a comparison needs; a fused
encoder of width 64; Muon, one cosine a stage.

The late interaction, which no paper has, on sets of descriptions that are true of one picture by themselves:

    python -m experiments.generate --target=data/pictograms
    python -m experiments.stages --config=configs/pictogram_sets.py --workdir=runs/sets --start=runs/pictograms

    1         captions: matching, masking and BLIP's contrastive loss; the image tower starts from --start, a run of
              configs/pictograms.py, if one is given
    pairs     short statements, true of one picture of a set and false of another: is each true of each?
    cosine    candidate sets, by the base score alone: the probability that each of a text's propositions is true, by
              the cosine of it and what it reads of a picture's tokens
    2a        candidate sets: the base score plus a Linear of the fused state, which begins as nothing
    2b        cached features: the inter-context encoder alone trains

    late_interaction   the form itself, which is that of no argument
    dual      a plain dual encoder (the cosine of whole texts), trained as long as all stages; it has 1 and cosine
    demo      shorter stages, for `make demo`: pairs and cosine, the two that learn

Where it differs from the paper: nothing is frozen in stages 1 and 2a; the contrastive loss stays on; the score begins
with that of a dual encoder, which reads a text in propositions; two stages between 1 and 2a; Muon, one cosine a stage.

Either form has `tiny`: 12 steps of a model that trains in seconds, for tests.
Accuracy and times: see the README.
Memory and bytes on a mesh: python -m experiments.plan --config=configs/pictogram_sets.py --mesh=data:1
"""

from configs.base import base, shrink, use_muon

STAGES = ("1", "pairs", "few", "cosine", "2a", "2b")
PAPER_STAGES = ("1", "pairs", "few", "2a", "2b")
LATE_STAGES, DUAL_STAGES = ("1", "pairs", "cosine", "2a", "2b"), ("1", "cosine")
PAPER = ("paper", "no_adapter", "convolutions", "no_masking", "fixed_masks", "no_context", "2a_longer")
LATE = ("late_interaction", "dual", "demo")
OTHERS = (*PAPER, *LATE, "tiny")
ARGUMENTS = (*STAGES, *OTHERS)
LONGER = 400  # steps of 2a that take as long as 2b and its features


def get_config(argument: str = "1"):
    """Returns a stage of the recipe, changed by the arguments that the module's docstring lists."""
    stage, *others = argument.split(",")
    for name in (stage, *others):
        if name not in ARGUMENTS or (name == stage) != (name in STAGES):
            raise ValueError(
                f"configs/pictogram_sets.py got '{name}'; expected a stage ({', '.join(STAGES)}), then some of "
                f"{', '.join(OTHERS)}."
            )
    own, late = ([name for name in others if name in form] for form in (PAPER, LATE))
    if own and late:
        raise ValueError(
            f"configs/pictogram_sets.py got '{own[0]}' of one form and '{late[0]}' of the other; give one."
        )
    allowed = stages(",".join(others))
    if stage not in allowed:
        given = f"'{','.join(others)}'" if others else "no argument"
        raise ValueError(
            f"configs/pictogram_sets.py got {given} with {stage}; its form has the stages {', '.join(allowed)}."
        )
    config = _shared()
    if own:
        _paper(config, stage, own)
    else:
        {"1": _captions, "pairs": _pairs, "cosine": _cosine, "2a": _sets, "2b": _features}[stage](config)
    if "dual" in others:
        config.model.propositions, config.data.propositions, config.model.pooling_heads = False, 0, 0
        if stage == "1":
            config.loss.weights.update({"matching": 0.0, "masking": 0.0})
        if stage == "cosine":
            config.training.steps = 1200  # as long as all stages of the recipe: a step is shorter
    if "demo" in others:
        config.training.steps = min(config.training.steps, 240)
    config.training.checkpoint_every = 250 if own else config.training.steps
    config.training.evaluate_every = 0 if "demo" in others else config.training.steps
    if "tiny" in others:
        shrink(config)
    return config


def stages(argument: str = "") -> tuple[str, ...]:
    """Returns the stages that are trained with these arguments, in order."""
    others = set(argument.split(","))
    if others & set(PAPER):
        return PAPER_STAGES[:-1] if "2a_longer" in others else PAPER_STAGES
    return DUAL_STAGES if "dual" in others else ("pairs", "cosine") if "demo" in others else LATE_STAGES


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

    use_muon(config, learning_rate=3e-3, warmup_steps=50)
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


def _paper(config, stage: str, variants: list[str]) -> None:
    """Makes a stage of the paper's form, changed by some of PAPER."""
    folder = "data/pictograms/contextual"
    config.data.folder = config.data.val_folder = folder
    config.data.propositions = 0
    config.model.text.update({"width": 64, "layers": 3, "mlp": 256})
    config.model.update({"propositions": False, "pooling_heads": 0, "projection": 0, "selection": "head"})
    config.loss.learned_temperature = False
    config.loss.weights.contrastive = 0.0
    config.optimizer.freeze = ("blip/vision",)
    if stage == "1":
        config.data.reader, config.data.folder = "cirr_captions", "data/pictograms/cirr"
        config.data.batch_size = 128
        config.model.update({"masking": "pixels", "selection": "none"})
        config.loss.weights.contrastive = 1.0
        config.training.steps = 300
    elif stage == "pairs":
        config.data.train_split = "train_simple"
        config.data.candidates, config.data.batch_size = 2, 192
        config.data.text_length = 18
        config.training.steps = 2000
    elif stage == "few":
        config.data.train_split = "train_few"
        config.data.candidates, config.data.batch_size = 5, 128
        config.data.text_length = 18
        config.training.steps = 1200
    elif stage == "2a":
        config.data.batch_size, config.data.descriptions = 16, 2
        config.data.text_length = 44
        config.optimizer.learning_rate = 1e-3
        config.training.steps = 2000 + LONGER * ("2a_longer" in variants)
    else:
        _features(config)
        config.data.records, config.data.batch_size = 12_000, 128
        config.data.text_length = 44
        config.optimizer.freeze = ("blip", "adapter") if "no_context" in variants else ("blip", "adapter", "head")
        config.training.steps = 1500
    if stage not in ("1", "pairs"):
        config.model.context_layers = 0 if {"no_context", "2a_longer"} & set(variants) else 2
    if "no_adapter" in variants:
        config.model.adapter = "none"
        config.optimizer.freeze = tuple(name for name in config.optimizer.freeze if name != "adapter")
    if "convolutions" in variants:
        config.model.adapter = "convolutions"
    if "no_masking" in variants:
        config.model.masking, config.loss.weights.masking = "none", 0.0
    if "fixed_masks" in variants:
        config.loss.fixed_masks = True
