"""The keys that all recipes share. The defaults of the models and their losses are the papers'."""

import re
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

SYSTEMS = ("context_cir", "context_blip", "composed_blip", "covr2", "clip")
COMPOSED = ("context_cir", "composed_blip", "covr2")  # which are trained on triplets


def base(system: str = "context_cir") -> Any:
    """Returns a config with every key there is, each with its default."""
    config: Any = ConfigDict()
    config.seed = 0
    config.mesh = "data:-1"  # sizes of the axes data, fsdp, tensor; -1 takes the devices that are left
    config.data = _data(system)
    config.model = model = ConfigDict()
    model.system = system
    model.variant = {"context_cir": "B16", "clip": "B16", "covr2": "BLIP2-G"}.get(system, "BLIP-B")
    model.start = ""  # the workdir of another run of ours (or an export), whose parameters this one begins with
    model.pretrained = ""  # a CLIP or BLIP to start from (folder or hub id): its sizes and tokenizer, not the variant's
    # Fields of VisionConfig, and of TextConfig or BertConfig, to replace. `remat`: what a tower's blocks keep for the
    # gradient, "none" (all is kept), "dots" (matmuls) or "full" (inputs); `attention`: "xla", or "cudnn" on a GPU;
    # `scan`: one block is compiled instead of all, and their parameters are stacked.
    model.vision = ConfigDict({"remat": "none", "attention": "xla", "scan": False})
    model.text = ConfigDict({"remat": "none", "attention": "xla", "scan": False})
    model.projection = 0  # 0: the variant's
    # Adapters (contextjax.lora): rank (0: none) and alpha of the products, and the beginnings of the paths, as
    # optimizer.freeze has them, of what has adapters: all matrices there, which have to be frozen. What is frozen is
    # the base (model.start or model.pretrained) that checkpoints leave out.
    model.lora = ConfigDict({"rank": 0, "alpha": 16.0, "paths": ()})
    model.dtype = "float32"
    own = {"context_cir": _context_cir, "context_blip": _context_blip, "composed_blip": _composed_blip}
    own |= {"covr2": _covr2, "clip": _clip}
    own_model, config.loss = own[system]()
    model.update(own_model)
    if system == "composed_blip":
        model.vision.taps = ()  # nothing reads them
    config.optimizer = _optimizer()
    config.training = training = ConfigDict()
    training.steps = 35_000
    training.micro_batches = 1  # parts of a batch that are encoded one after the other; the gradients are the batch's
    training.log_every = 50
    training.checkpoint_every = 2000
    training.evaluate_every = 2000  # and after the last step; 0: never
    training.best = ConfigDict()  # metric of an evaluation -> weight: the checkpoint with the highest sum is kept, too
    training.max_bad_steps = 10  # bad (non-finite) steps in a row that end the run; the update of one is left out
    # A step is bad, too, whose gradient norm is so many times the mean of those before it; 0: none is, as published.
    training.spike_factor = 0.0
    training.diagnose_every = 0  # gradient norms by term and the like, every so many steps; 0: never
    return config


def shrink(config: Any) -> None:
    """Makes a recipe so small that it trains in seconds on a CPU. Its data, terms and optimizer stay what they are."""
    variants = {"context_cir": "S16", "clip": "S16", "covr2": "BLIP2-S16"}
    is_siglip = config.model.variant.startswith("SigLIP")
    config.model.variant = "SigLIP-S16" if is_siglip else variants.get(config.model.system, "BLIP-S16")
    config.model.pretrained = ""
    config.model.dtype = "float32"
    config.model.projection = 32 if is_siglip else 16
    for tower in (config.model.vision, config.model.text):
        tower.update({"width": 32, "mlp": 64, "layers": 1})
    config.data.vocabulary = 300
    config.data.text_length = min(config.data.text_length, 32)
    config.data.batch_size = 8
    if config.model.system in COMPOSED:
        config.data.update({"grounded": 0} if "grounded" in config.data else {})
        config.data.caption_length = 36
        config.loss.lead_steps = min(config.loss.lead_steps, 4)
    if config.model.system == "context_cir":
        config.model.fusion_layers = min(config.model.fusion_layers, 1)
    elif config.model.system == "composed_blip":
        config.model.vision.image_size = 64
        config.model.update({name: 3 for name in ("fused_token", "reverse_token") if config.model[name] is not None})
    elif config.model.system == "covr2":
        config.model.vision.update({"image_size": 64})
    elif config.model.system == "context_blip":
        config.model.vision.update({"image_size": 64, "taps": (1,)})
        config.model.update({"decoder_layers": 1, "decoder_heads": 4, "context_heads": 4, "fused_token": None})
        config.model.context_layers = min(config.model.context_layers, 1)
        config.data.descriptions = min(config.data.descriptions, 2)
    config.optimizer.warmup_steps = min(config.optimizer.warmup_steps, 4)
    config.training.update({"steps": 12, "log_every": 1, "checkpoint_every": 5, "evaluate_every": 6})


def train_small_towers(config: Any) -> None:
    """Trains a system of composed queries from nothing at 64 pixels, in minutes on two CPU cores.

    The docstring of configs/pictograms.py says where this differs from the paper.
    """
    config.data.batch_size = 16
    config.data.modifications = 4
    config.data.phrases_per_text = 1.0
    config.data.phrase_length = 8
    config.data.cache_mb = 1024

    if config.model.system == "context_cir":
        config.model.variant = "S16"
        config.model.fusion_layers = 2
        config.model.fusion_heads = 4
        config.model.fusion_activation = "quick_gelu"
        config.model.fusion_self_attention = True
        config.model.fusion_head = "gallery"
    else:
        config.model.variant = "BLIP-S16"

    config.loss.weights.captions = 0.2
    config.loss.lead_steps = 200
    config.loss.learned_temperature = True

    use_muon(config, learning_rate=2e-3, warmup_steps=100)

    config.training.steps = 1500
    config.training.log_every = 50
    config.training.checkpoint_every = 500


def train_on_pictograms(config: Any, folder: str) -> None:
    """Trains small towers on the pictogram scenes in a folder; configs/pictograms.py says more."""
    train_small_towers(config)
    config.data.folder = folder
    config.data.text_length = 24
    config.data.caption_length = 36
    config.data.vocabulary = 800
    config.data.grounded = 256
    config.training.evaluate_every = 750


def use_muon(config: Any, *, learning_rate: float, warmup_steps: int) -> None:
    """Trains the matrices with Muon and all else with AdamW, over one cosine; only the matrices decay."""
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = learning_rate
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = warmup_steps
    config.optimizer.weight_decay = 0.05
    config.optimizer.decay_vectors = False


def use_lora(config: Any, rank: float, *, paths: Sequence[str], freeze: Sequence[str]) -> None:
    """Trains adapters of the blocks under `paths` instead of what `freeze` names.

    Alpha is twice the rank, and the adapters' rate 1e-4, which is usual and unmeasured here.

    Raises:
      ValueError: `rank` is no whole number above 0.
    """
    if rank < 1 or rank != int(rank):
        raise ValueError(f"The rank of lora{rank:g} is {rank:g}; expected a whole number of 1 or more, as lora8.")
    config.model.lora.update({"rank": int(rank), "alpha": 2.0 * rank, "paths": tuple(f"{p}/layers" for p in paths)})
    config.optimizer.freeze = tuple(dict.fromkeys((*config.optimizer.freeze, *freeze)))
    config.optimizer.multipliers.lora = 1e-4 / config.optimizer.learning_rate
    config.training.diagnose_every = 0  # which takes gradients of everything


def numbered(argument: str, kinds: Sequence[str]) -> tuple[list[str], dict[str, float]]:
    """Splits a recipe's argument at its commas into names, and numbers by the names before them: "weight0.8".

    Raises:
      ValueError: a number comes twice.
    """
    names, numbers = [], {}
    for name in filter(None, argument.split(",")):
        match = re.fullmatch(rf"({'|'.join(kinds)})(\d+(?:\.\d+)?)", name)
        if not match:
            names.append(name)
        elif match[1] in numbers:
            raise ValueError(f"The recipe's argument has '{match[1]}' twice; give one.")
        else:
            numbers[match[1]] = float(match[2])
    return names, numbers


def source(reader: str = "", *, folder: str = "", weight: float = 1.0, records: int = 0) -> Any:
    """Returns a set of a mixture: its reader ("": the source's name), folder ("": data.folder), weight and records.

    The weight is how often each of its samples is seen in an epoch: 1 for all sources is uniform over all samples; 0
    leaves the set out. `records` is data.records of this source alone.
    """
    return ConfigDict({"reader": reader, "folder": folder, "weight": weight, "records": records})


def evaluation(protocol: str = "", *, folder: str = "", split: str = "val") -> Any:
    """Returns an evaluation in training: its protocol ("": the evaluation's name), its folder and its split.

    Without a folder it is that of data.val_folder or data.folder, where the protocol reads folders of that layout;
    otherwise the evaluation is left out, which is printed.
    """
    return ConfigDict({"protocol": protocol, "folder": folder, "split": split})


def _data(system: str) -> Any:
    data: Any = ConfigDict()
    data.reader = "cirr" if system in COMPOSED else "captions"
    data.folder = ""
    data.sources = ConfigDict()  # instead of the two: name -> source(...), several sets that are trained on together
    data.train_split = "train"
    data.val_split = "val"
    data.val_reader = ""  # where what is evaluated is another data set: its reader
    data.val_folder = ""  # and its folder
    data.evaluations = ConfigDict()  # instead of these: name -> evaluation(...), whose metrics are "name/split/R@5"
    data.batch_size = 256  # references, captions or descriptions in a global batch
    data.text_length = 77  # tokens
    data.vocabulary = 0  # > 0: a tokenizer of that size is trained on the set's texts
    data.workers = 0  # loader processes; 0: a thread
    data.cache_mb = 0  # decoded pictures kept in memory
    data.prepared = ""  # a folder for the prepared tables, where data.folder can't be written; "": its own prepared/
    # Of training pictures: "none", "light" (a crop and a flip), "published" (as ContextBLIP's paper has it), or "set"
    # (one crop for all pictures of a sample, no flips), or "reference" (as CoVR-2 has it: references alone).
    data.augment = "none"
    # Only so many of the training split's records; 0: all. Evenly spread; of composed queries whole references, drawn
    # once, so that a smaller number of them is a part of a larger one.
    data.records = 0
    data.bad_pictures = "fail"  # or "skip": training leaves out missing and unreadable ones, and records that name them
    # Encode once by model.start, without augmentation, and train what reads its features: ContextBLIP's stage 2b, or a
    # combiner.
    data.cached = False
    if system in COMPOSED:
        data.modifications = 1  # texts (and targets) of each reference
        data.caption_length = 77
    if system == "covr2":
        data.clean = True  # texts lose their punctuation and capitals, as published
    elif system in COMPOSED:
        data.phrases_per_text = 4.0  # the phrase budget of a batch, over its number of texts
        data.phrase_length = 12  # tokens, BOS and EOS included
        # Queries of each evaluation in training, evenly spread, whose maps are measured against boxes; 0: none.
        data.grounded = 0
        data.pronouns = True  # "it" and "this one" are phrases too, as published
    elif system == "context_blip":
        data.candidates = 10  # pictures of a candidate set in a batch; a smaller set is filled up
        data.descriptions = 1  # of one set in a sample, for which its pictures are encoded once
        data.propositions = 0  # short sentences that a text is split into for model.propositions; 0: the whole text
        data.proposition_length = 20  # tokens
        data.clean = True  # texts lose their punctuation, as published
    return data


def _context_cir() -> tuple[Any, Any]:
    """Returns the model fields and the loss of ConText-CIR (CVPR 2025)."""
    model: Any = ConfigDict()
    model.fusion_layers = 4
    model.fusion_heads = 8
    model.fusion_activation = "gelu"
    model.fusion_self_attention = False
    model.fusion_head = "own"  # attention pooling and a Linear; or "gallery": what the gallery reads its tokens with
    model.query = "fusion"  # or "combiner", "pseudo_word", "qformer", or a baseline: "image", "text", "sum", "raw_sum"
    model.template = "{}"  # the text of a query, around the user's own; "*" is where a pseudo-word stands
    return model, _composed_loss()


def _composed_blip() -> tuple[Any, Any]:
    """Returns the model fields and the loss of composed BLIP."""
    model: Any = ConfigDict()
    model.fused_token = 30523  # at position 0 of texts that read a picture: BLIP's [ENC]; None: nothing is replaced
    model.reverse_token = 30522  # of those that lead from the target back to the reference: BLIP's [DEC]
    model.query = "composed"
    model.template = "{}"
    loss = _composed_loss()
    loss.weights.update({"contrastive": 0.0, "recall": 1.0, "consistency": 0.0})
    return model, loss


def _composed_loss() -> Any:
    """Returns the loss of systems that are trained on composed queries, with ConText-CIR's weights."""
    loss: Any = ConfigDict()
    # contrastive: InfoNCE; recall: the Recall@K surrogate instead; reverse: target and text find the reference;
    # consistency: of phrases' maps; captions: InfoNCE of captions and pictures; pseudo_word: of masked captions.
    weights = {"contrastive": 1.0, "recall": 0.0, "reverse": 0.0, "consistency": 0.08, "captions": 0.0}
    loss.weights = ConfigDict({**weights, "pseudo_word": 0.0})
    loss.one_direction = False  # the contrastive term is of queries against targets alone
    loss.contrastive = "gathered"  # or, without the matrix of logits, "chunked" or, across devices, "ring"
    loss.chunk = 0  # side of the blocks of logits of these two; 0: all of a device at once
    loss.sigmoid = False  # SigLIP's loss instead of InfoNCE, on a SigLIP's towers: each pair by itself, a learned bias
    loss.lead_steps = 0  # steps in which the captions loss is trained alone, before the rest begins
    loss.temperature = 0.07
    loss.learned_temperature = False  # starts at 0.07, whatever the pretrained CLIP had
    loss.epsilon = 0.0
    loss.normalize_maps = False
    loss.reference_negatives = True
    loss.mask_false_negatives = False
    return loss


def _clip() -> tuple[Any, Any]:
    """Returns the loss of a plain CLIP or SigLIP; its model has no fields of its own."""
    loss: Any = ConfigDict()
    loss.weights = ConfigDict({"contrastive": 1.0})
    loss.contrastive = "gathered"  # or, without the matrix of logits, "chunked" or, across devices, "ring"
    loss.chunk = 0  # side of the blocks of logits of these two; 0: all of a device at once
    loss.sigmoid = False  # SigLIP's loss, see ConText-CIR's
    loss.temperature = 0.07
    loss.learned_temperature = True  # goes on from that of the pretrained CLIP; False: the one above, fixed
    return ConfigDict(), loss


def _covr2() -> tuple[Any, Any]:
    """Returns the model fields and the loss of CoVR-2 (TPAMI 2024)."""
    model: Any = ConfigDict()
    model.query = "token_mean"  # of all pairs of a query's and a picture's vectors; or "token_max", the best pair

    loss: Any = ConfigDict()
    loss.weights = ConfigDict({"hard_negative": 1.0, "captions": 0.0})  # against target pictures, their captions
    loss.contrastive = "gathered"  # the form of both, see ConText-CIR's
    loss.chunk = 0
    loss.lead_steps = 0  # ConText-CIR's
    loss.temperature = 0.07
    loss.learned_temperature = False  # there is none
    loss.alpha = 1.0  # weight of the positive in the denominator
    loss.beta = 0.5  # how much more a harder negative weighs; 0: InfoNCE
    loss.mask_false_negatives = False
    return model, loss


def _context_blip() -> tuple[Any, Any]:
    """Returns the model fields and the loss of ContextBLIP (Findings of ACL 2024).

    The "summary form" is that which a summary of the paper in circulation describes (see configs/context_blip.py).
    """
    model: Any = ConfigDict()
    model.adapter = "taps"  # after the blocks model.vision.taps; or "convolutions" (the summary form), or "none"
    model.adapter_reduction = 2
    model.adapter_zero_init = False
    model.masking = "pixels"  # or "attended" (the summary form), or "none"
    model.mask_rate = 0.25
    model.decoder_layers = 4
    model.decoder_heads = 8
    model.selection = "none"  # "head", "itc", "both" or "adapted" (the summary form)
    model.propositions = False  # the base score is the probability that each of a text's propositions is true
    model.pooling_heads = 0  # > 0: the base score is of a text and what it reads of a picture's tokens (X-Pool)
    model.context_layers = 0  # of the inter-context encoder; 2 in the paper's last stage
    model.context_heads = 8
    model.context_positions = 10
    model.context_dropout = 0.1
    model.context_relative = False
    model.context_text = False  # it reads a token of the text too
    model.fused_token = 30523  # at position 0 of texts that read a picture: BLIP's [ENC]; None: nothing is replaced

    loss: Any = ConfigDict()
    loss.weights = ConfigDict({"matching": 1.0, "masking": 1.0, "contrastive": 0.0, "selection": 1.0, "truth": 0.0})
    loss.contrastive = "gathered"  # or, without the matrix of logits, "chunked" or, across devices, "ring"
    loss.chunk = 0  # side of the blocks of logits of these two; 0: all of a device at once
    loss.lead_steps = 0  # ConText-CIR's
    loss.temperature = 0.07  # of the contrastive term on captions; candidate sets have the model's own
    loss.learned_temperature = False  # the model's own on captions too
    loss.real_tokens = True  # the masking's token is a real one; False: any position, as published
    loss.fixed_masks = False  # random masks that a picture keeps, instead of what its text attends to
    loss.scrambled = False  # as the published code shows the visible patches: for comparison only
    loss.mask_false_negatives = True  # a text is never paired with its own picture as a negative
    return model, loss


def _optimizer() -> Any:
    optimizer: Any = ConfigDict()
    optimizer.name = "adamw"  # or "adam" (L2), or "muon" for the matrices and AdamW for the rest
    optimizer.learning_rate = 1e-5
    optimizer.schedule = "restarts"  # or "cosine", or "exponential"
    optimizer.warmup_steps = 500
    optimizer.restart_period = 2500
    optimizer.restart_factor = 2
    optimizer.decay_period = 1000  # steps after which "exponential" multiplies by decay_factor
    optimizer.decay_factor = 0.9
    optimizer.beta1 = 0.9
    optimizer.beta2 = 0.98
    optimizer.epsilon = 1e-8
    optimizer.weight_decay = 1e-2
    optimizer.decay_vectors = True  # biases, norms and scalars decay too
    optimizer.clip_norm = 1.0
    optimizer.freeze = ()  # beginnings of parameter paths that are not trained, such as "clip/vision"
    optimizer.multipliers = ConfigDict()  # beginning of a path -> factor of its learning rate; those that fit multiply
    return optimizer
