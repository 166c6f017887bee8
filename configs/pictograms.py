"""ConText-CIR from scratch on the embedded pictogram scenes, on two CPU cores.

    python -m experiments.generate --target=data/pictograms
    python -m experiments.train --config=configs/pictograms.py --workdir=runs/pictograms

Arguments, joined by commas (configs/pictograms.py:demo):
    demo             a shorter training, for `make demo`
    no_consistency   without the consistency loss
    normalized       the consistency loss on maps that are divided by their sums
    no_negatives     references are no negatives
    depth0, depth1, depth4   that many fusion blocks instead of two
    towers           the captions loss alone, which trains the towers
    frozen           towers that are not trained, for --config.model.start=RUN, a run of `towers`
    sum, image, text baselines: the query is the sum of the two embeddings, or one of them; same towers
    synthetic        trained on synthesized triplets alone: the zero-shot protocol; evaluated on the real ones
    both             on the real and the synthesized ones
    tiny             12 steps of a model that trains in seconds, for tests; it learns nothing

What `synthetic` and `both` read is made of the real pairs by rules that read the scene graphs, not by a model:

    python -m experiments.synthesize --data=data/pictograms/cirr --target=data/pictograms/synthetic --backend=rules
    python -m experiments.compare --config=configs/pictograms.py --variants=recipe,synthetic,both --workdir=runs/both

They take the first text of each pair (data.reader=cirr), so that a reference's samples have different targets.

Where it differs from the paper, because small towers start from nothing here: the vision tower has a 4 x 4 stem; the
gallery reads all tokens side by side ("grid") instead of CLS, which learns much later what stands where; two fusion
blocks instead of four, with self-attention, four heads and quick GELU; the fused tokens are read by the gallery's own
head, so that an unread query is its reference; a learned temperature; a caption-contrastive loss that leads for the
first 200 steps and stays on at 0.2; Muon and one cosine instead of AdamW and warm restarts; a budget of one phrase a
text.

Expected on validation, mean of three seeds: R@1 74.6, R@5 93.9, Rs@1 93.7 (at most 442 s of training on two CPU cores,
2026-11-22 and -23; the README has the details).
Memory and bytes on a mesh: python -m experiments.plan --config=configs/pictograms.py --mesh=data:1
"""

from configs.base import base, shrink, source, train_on_pictograms

ARGUMENTS = (
    "demo", "no_consistency", "normalized", "no_negatives", "depth0", "depth1", "depth4", "towers", "frozen",
    "sum", "image", "text", "synthetic", "both", "tiny",
)  # fmt: skip
REAL, SYNTHETIC = "data/pictograms/cirr", "data/pictograms/synthetic"


def get_config(argument: str = ""):
    """Returns the recipe, changed by the arguments that the module's docstring lists."""
    config = _recipe()
    for name in filter(None, argument.split(",")):
        if name not in ARGUMENTS:
            raise ValueError(f"configs/pictograms.py has no argument '{name}'; it has {', '.join(ARGUMENTS)}.")
        if name == "demo":
            config.training.steps, config.loss.lead_steps = 1050, 130
            config.training.checkpoint_every = config.training.steps
            config.training.evaluate_every = 0
        elif name == "no_consistency":
            config.loss.weights.consistency = 0.0
        elif name == "normalized":
            config.loss.normalize_maps = True
        elif name == "no_negatives":
            config.loss.reference_negatives = False
        elif name.startswith("depth"):
            config.model.fusion_layers = int(name.removeprefix("depth"))
        elif name == "towers":
            config.loss.weights.update({"contrastive": 0.0, "consistency": 0.0, "captions": 1.0})
            config.loss.lead_steps = 0
        elif name == "frozen":
            config.optimizer.freeze = ("clip",)
            config.loss.weights.captions, config.loss.lead_steps = 0.0, 0
        elif name == "synthetic":
            config.data.folder, config.data.val_folder = SYNTHETIC, REAL
        elif name == "both":
            config.data.sources.update(
                {"real": source("cirr", folder=REAL), "synthetic": source("cirr", folder=SYNTHETIC)}
            )
        elif name == "tiny":
            shrink(config)
        else:
            config.model.query = name
    return config


def _recipe():
    config = base()
    train_on_pictograms(config, REAL)
    return config
