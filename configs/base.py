"""What recipes share. The defaults of the model and its losses are the paper's (CVPR 2025)."""

from typing import Any

from ml_collections import ConfigDict


def base() -> Any:
    """Every key there is, with its default."""
    config: Any = ConfigDict()
    config.seed = 0
    config.mesh = "data:-1"  # sizes of the axes data, fsdp, tensor; -1 takes the devices that are left

    config.data = data = ConfigDict()
    data.reader = "cirr"
    data.folder = ""
    data.train_split = "train"
    data.val_split = "val"
    data.batch_size = 256  # references in a global batch
    data.modifications = 1  # texts (and targets) of each reference
    data.text_length = 77  # tokens
    data.caption_length = 77
    data.vocabulary = 0  # > 0: a tokenizer of that size is trained on the set's texts
    data.phrases_per_text = 4.0  # the phrase budget of a batch, over its number of texts
    data.phrase_length = 12  # tokens, BOS and EOS included
    data.workers = 0  # loader processes; 0: a thread
    data.cache_mb = 0  # decoded pictures kept in memory

    config.model = model = ConfigDict()
    model.variant = "B16"
    model.start = ""  # the workdir of another run of ours, whose parameters this one begins with
    model.pretrained = ""  # a CLIP to start from (folder or hub id): its sizes and tokenizer, instead of the variant's
    model.vision = ConfigDict()  # fields of VisionConfig to replace
    model.text = ConfigDict()  # fields of TextConfig to replace
    model.projection = 0  # 0: the variant's
    model.fusion_layers = 4
    model.fusion_heads = 8
    model.fusion_activation = "gelu"
    model.fusion_self_attention = False
    model.fusion_head = "own"  # attention pooling and a Linear; or "gallery": what the gallery reads its tokens with
    model.query = "fusion"  # or a baseline: "image", "text", "sum"
    model.dtype = "float32"

    config.loss = loss = ConfigDict()
    loss.weights = ConfigDict({"contrastive": 1.0, "consistency": 0.08, "captions": 0.0})
    loss.lead_steps = 0  # steps in which the captions loss is trained alone, before the rest begins
    loss.temperature = 0.07
    loss.learned_temperature = False  # starts at 0.07
    loss.epsilon = 0.0
    loss.normalize_maps = False
    loss.reference_negatives = True
    loss.mask_false_negatives = False

    config.optimizer = optimizer = ConfigDict()
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
    optimizer.multipliers = ConfigDict()  # beginning of a path -> factor of its learning rate

    config.training = training = ConfigDict()
    training.steps = 35_000
    training.log_every = 50
    training.checkpoint_every = 2000
    training.evaluate_every = 2000
    training.max_bad_steps = 1
    training.diagnose_every = 0  # gradient norms by term and the like, every so many steps; 0: never
    return config
