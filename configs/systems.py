"""Systems of composed retrieval side by side on the pictogram scenes: the same small towers, data and optimizer.

    python -m experiments.compare --config=configs/systems.py --minutes=5 --workdir=runs/systems \\
      --rows=results/systems.jsonl \\
      --variants=context_cir,no_consistency,sum,raw_sum,combiner,composed_blip,qformer,pseudo_word

Each argument is a system, trained by the recipe of configs/pictograms.py (towers from nothing, which captions lead):
    context_cir      ConText-CIR
    no_consistency   without the consistency loss
    sum, raw_sum     CLIP's sum of both embeddings; of both features as they are (CLIP4Cir's first stage)
    combiner         CLIP4Cir's Combiner on those features, trained with the towers instead of after them
    composed_blip    BLIP whose text encoder reads the reference picture ("unverified form" of CASE, see its docs page)
    qformer          CoVR-2's query: a Q-Former's 32 tokens read the picture and the text; the gallery is CLIP's
    pseudo_word      SEARLE's and LinCIR's word for a picture: trained on captions alone, no triplet is seen
    tiny             with one of these, 12 steps of a model that trains in seconds, for tests; it learns nothing

Only the parts of the systems differ from their papers' in size; the training differs in more: their own recipes are
configs/context_cir.py, configs/clip4cir.py, configs/composed_blip.py, configs/covr2.py and configs/pseudo_word.py.
"""

from configs.base import base, shrink, train_on_pictograms

SYSTEMS = ("context_cir", "no_consistency", "sum", "raw_sum", "combiner", "composed_blip", "qformer", "pseudo_word")
ARGUMENTS = (*SYSTEMS, "tiny")
DATA = "data/pictograms/cirr"


def get_config(argument: str = ""):
    """Returns the recipe of one system; the module's docstring lists them."""
    names = list(filter(None, argument.split(","))) or ["context_cir"]
    if odd := [name for name in names if name not in ARGUMENTS]:
        raise ValueError(f"configs/systems.py has no argument '{odd[0]}'; it has {', '.join(ARGUMENTS)}.")
    chosen = [name for name in names if name != "tiny"] or ["context_cir"]
    if len(chosen) > 1:
        raise ValueError(f"configs/systems.py got two systems, {chosen[0]} and {chosen[1]}; give one.")
    config = _recipe(chosen[0])
    if "tiny" in names:
        shrink(config)
    return config


def _recipe(name: str):
    config = base("composed_blip" if name == "composed_blip" else "context_cir")
    train_on_pictograms(config, DATA)
    if name == "no_consistency":
        config.loss.weights.consistency = 0.0
    elif name == "composed_blip":
        config.model.update({"fused_token": None, "reverse_token": None})
        config.loss.weights.update({"contrastive": 1.0, "recall": 0.0})
    elif name == "pseudo_word":
        config.model.query, config.model.template = name, "* {}"
        config.loss.weights.update({"contrastive": 0.0, "consistency": 0.0, "captions": 1.0, "pseudo_word": 1.0})
    elif name != "context_cir":
        config.model.query = name
    return config
