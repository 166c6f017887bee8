"""Every argument of CLIP's recipe gives a whole recipe, and a wrong one is reported."""

import pytest
from flax.linen import unbox

from configs.clip import get_config
from contextjax.lora import Adapted
from contextjax.losses.sigmoid import sigmoid_loss
from contextjax.models.clip import CLIP
from contextjax.objectives.context_blip import CaptionObjective
from contextjax.pretrained import abstract_params
from contextjax.variants import make_model, make_spec
from experiments.shared import models, systems


@pytest.mark.parametrize(
    "argument",
    [
        "pairs",
        "karpathy,L14",
        "image0",
        "text0.1,H14",
        "tiny",
        "karpathy,tiny",
        "L14,lora8",
        "SigLIP2-B16,image0.5",
        "tiny_siglip",
        "SigLIP-L16,lora4,image0",
    ],
)
def test_every_argument_gives_a_whole_recipe(argument):
    config = get_config(argument)
    model = make_model(make_spec(config.model, vocabulary=500))
    (phase,) = systems.of(config).make_phases(config, model)
    assert isinstance(model, CLIP) and isinstance(phase.objective, CaptionObjective) and phase.objective.is_rowwise
    assert config.data.reader == ("karpathy" if "karpathy" in argument else "captions")
    is_siglip = "iglip" in argument.lower()
    assert phase.objective.sigmoid == model.config.is_siglip == is_siglip
    assert (phase.objective.contrastive is sigmoid_loss) == is_siglip


def test_a_tower_is_frozen_or_slowed():
    config = get_config("image0,text0.5")
    assert config.optimizer.freeze == ("vision", "visual_projection")
    assert config.optimizer.multipliers.to_dict() == {"text": 0.5, "text_projection": 0.5}
    assert get_config("image0,SigLIP-L16").optimizer.freeze == ("vision",)  # pictures are not projected


def test_adapters_are_trained_instead_of_the_towers():
    config = get_config("lora8")
    assert config.model.lora.to_dict() == {"rank": 8, "alpha": 16.0, "paths": ("vision/layers", "text/layers")}
    assert config.optimizer.freeze == ("vision", "visual_projection", "text", "text_projection")
    assert config.optimizer.multipliers.to_dict() == {"lora": pytest.approx(10.0)}
    config = get_config("lora4,image0,text0.5")
    assert config.model.lora.paths == ("text/layers",) and config.optimizer.multipliers["lora/text"] == 0.5
    model = make_model(make_spec(config.model, vocabulary=500))
    models.lora_of(config).check(unbox(abstract_params(model)), config.optimizer.freeze)
    (phase,) = systems.make_phases(config, model, models.lora_of(config))
    assert isinstance(phase.objective, Adapted) and phase.objective.weights == (("contrastive", 1.0),)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("lora0", "rank of lora0 is 0; expected a whole"),
        ("lora2.5", "lora2.5 is 2.5"),
        ("lora", "no argument 'lora'"),
        ("G14", "no argument 'G14'"),
        ("pairs,karpathy", "a second data set, 'karpathy'"),
        ("B32,B16", "a second size"),
    ],
)
def test_a_wrong_argument_is_reported(argument, said):
    with pytest.raises(ValueError, match=said):
        get_config(argument)
