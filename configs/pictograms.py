"""ConText-CIR from scratch on the embedded pictogram scenes, on two CPU cores.

    python -m experiments.generate --target=data/pictograms
    python -m experiments.train --config=configs/pictograms.py --workdir=runs/pictograms

Arguments, joined by commas (configs/pictograms.py:demo):
    demo             a shorter training, for `make demo`
    no_consistency   without the consistency loss
    weight0.8        the weight of the consistency loss, any number; the paper's is 0.08
    phrases4         so many phrases a text in a batch's budget instead of one; the paper takes all (here 4)
    normalized       the consistency loss on maps that are divided by their sums
    no_pronouns      phrases such as "it" are no concepts
    no_negatives     references are no negatives
    depth0, depth1, depth4   that many fusion blocks instead of two
    towers           the captions loss alone, which trains the towers; their own retrieval of pictures by captions is
                     evaluated (captions/val/R@1), so that one sees when it has converged
    frozen           towers that are not trained, for --config.model.start=RUN, a run of `towers`
    sum, image, text baselines: the query is the sum of the two embeddings, or one of them; same towers
    synthetic        trained on synthesized triplets alone: the zero-shot protocol; evaluated on the real ones
    both             on the real and the synthesized ones
    triplets2000     the paper's regime, see below, on so many real triplets; 144000 are all of 6,000 groups
    synthesized8000  the paper's regime on so many synthesized triplets, alone or beside the real ones
    clip0.1          in that regime: the towers' share of the learning rate; 1, as published, without it
    tiny             12 steps of a model that trains in seconds, for tests; it learns nothing

`synthetic`, `both` and `synthesized8000` read triplets made from the real pairs by rules that read the scene graphs,
not by a model:

    python -m experiments.synthesize --data=data/pictograms/cirr --target=data/pictograms/synthetic --backend=rules
    python -m experiments.compare --config=configs/pictograms.py --variants=recipe,synthetic,both --workdir=runs/both

They take the first text of each pair (data.reader=cirr), so that a reference's samples have different targets.

The paper's regime: towers that know pictures and captions (--config.model.start=RUN, a run of `towers`) are trained on
few triplets with the published loss: no captions, the temperature fixed at 0.07, references as negatives. The best
checkpoint by `val` (half R@1, half Rs@1) is kept, and what is reported is `test1`. A triplet's reference comes with all
of its four triplets: 500 are of 125 references. All settings have the same steps, which are many epochs of few
triplets. docs/results/consistency.md has the commands.

Where it differs from the paper, because small towers start from nothing here: the vision tower has a 4 x 4 stem; the
gallery reads all tokens side by side ("grid") instead of CLS, which learns much later what stands where; two fusion
blocks instead of four, with self-attention, four heads and quick GELU; the fused tokens are read by the gallery's own
head, so that an unread query is its reference; a learned temperature; a caption-contrastive loss that leads for the
first 200 steps and stays on at 0.2; Muon and one cosine instead of AdamW and warm restarts; a budget of one phrase a
text.

Expected on validation after 1,500 steps, mean of three seeds: R@1 74.5, R@5 94.0, Rs@1 93.7; of `sum` 57.4,
93.3 and 75.6 (2026-11-29; docs/results/pictograms.md has the details).
Memory and bytes on a mesh: python -m experiments.plan --config=configs/pictograms.py --mesh=data:1
"""

from configs.base import base, evaluation, numbered, shrink, source, train_on_pictograms

ARGUMENTS = (
    "demo", "no_consistency", "normalized", "no_pronouns", "no_negatives", "depth0", "depth1", "depth4", "towers",
    "frozen", "sum", "image", "text", "synthetic", "both", "tiny",
)  # fmt: skip
NUMBERED = ("weight", "phrases", "triplets", "synthesized", "clip")  # arguments that end with a number
REAL, SYNTHETIC = "data/pictograms/cirr", "data/pictograms/synthetic"


def get_config(argument: str = ""):
    """Returns the recipe, changed by the arguments that the module's docstring lists."""
    config = _recipe()
    names, numbers = numbered(argument, NUMBERED)
    counts = {kind: int(numbers[kind]) for kind in ("triplets", "synthesized") if kind in numbers}
    if counts:
        _paper_regime(config, **counts)
    for name in names:
        if name not in ARGUMENTS:
            known = ", ".join((*ARGUMENTS, *(f"{kind}NUMBER" for kind in NUMBERED)))
            raise ValueError(f"configs/pictograms.py has no argument '{name}'; it has {known}.")
        if name == "demo":
            config.training.steps, config.loss.lead_steps = 1050, 130
            config.training.checkpoint_every = config.training.steps
            config.training.evaluate_every = 0
        elif name == "no_consistency":
            config.loss.weights.consistency = 0.0
        elif name == "normalized":
            config.loss.normalize_maps = True
        elif name == "no_pronouns":
            config.data.pronouns = False
        elif name == "no_negatives":
            config.loss.reference_negatives = False
        elif name.startswith("depth"):
            config.model.fusion_layers = int(name.removeprefix("depth"))
        elif name == "towers":
            config.loss.weights.update({"contrastive": 0.0, "consistency": 0.0, "captions": 1.0})
            config.loss.lead_steps = 0
            config.data.evaluations.update({"captions": evaluation("cirr_captions")})
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
    if "weight" in numbers:
        config.loss.weights.consistency = numbers["weight"]
    if "phrases" in numbers:
        config.data.phrases_per_text = numbers["phrases"]
    if "clip" in numbers:
        config.optimizer.multipliers.clip = numbers["clip"]
    return config


def _recipe():
    config = base()
    train_on_pictograms(config, REAL)
    return config


def _paper_regime(config, *, triplets: int = 0, synthesized: int = 0) -> None:
    """Trains on few triplets with the published loss; the best checkpoint by one split is reported on another."""
    if synthesized:
        config.data.sources.synthetic = source("cirr", folder=SYNTHETIC, records=synthesized)
        if triplets:
            config.data.sources.real = source("cirr", folder=REAL, records=triplets)
    else:
        config.data.records = triplets
    config.loss.weights.captions, config.loss.lead_steps = 0.0, 0
    config.loss.learned_temperature = False
    config.training.steps = 300
    config.training.evaluate_every = config.training.checkpoint_every = 100
    config.data.evaluations.update({"cirr": evaluation()})
    config.training.best.update({"cirr/val/R@1": 0.5, "cirr/val/Rs@1": 0.5})
    config.data.val_split = "test1"
