"""The local backend on models of transformers: a tiny LLaVA for pictures and a tiny Llama for texts, random weights.

What they say is noise; that they are shown the picture and the prompt, and end, is what is tested.
"""

import json

import numpy as np
import pytest
from PIL import Image

from contextjax.types import UserError
from data_pipelines.chat.local import LocalModel
from data_pipelines.chat.questions import Question, ShownPicture
from data_pipelines.synthesis.drafts import Draft
from data_pipelines.synthesis.pairs import folder_pictures
from data_pipelines.synthesis.pipeline import Pipeline, run_local
from data_pipelines.synthesis.stages import read_prompts

pytestmark = pytest.mark.parity
TEMPLATE = (
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}"
)
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders "sees" and "writes" in transformers' layout."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    torch.manual_seed(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<pad>", "<s>", "</s>", "<image>"]
    inner = Tokenizer(models.BPE({t: i for i, t in enumerate([*specials, *alphabet])}, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=["<image>"], chat_template=TEMPLATE,
    )  # fmt: skip
    root, vocabulary = tmp_path_factory.mktemp("local"), len(specials) + len(alphabet)
    text = transformers.LlamaConfig(vocab_size=vocabulary, max_position_embeddings=4096, **SIZES)
    transformers.LlamaForCausalLM(text).save_pretrained(root / "writes")
    tokenizer.save_pretrained(root / "writes")
    vision = transformers.CLIPVisionConfig(image_size=16, patch_size=8, **SIZES)
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=3, vision_feature_layer=-1
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(root / "sees")
    pictures = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    transformers.LlavaProcessor(
        pictures, tokenizer, patch_size=8, vision_feature_select_strategy="default", chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(root / "sees")  # fmt: skip
    return root


@pytest.fixture
def folder(tmp_path):
    place, rng = tmp_path / "pictures", np.random.default_rng(0)
    place.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(place / name)
    return place


def shown(folder, name):
    return ShownPicture(name, name, (folder / name).read_bytes())


def test_it_is_asked_and_answers_the_same_again(models, folder):
    prompt = read_prompts()["describe_reference"]
    ask = lambda name: LocalModel(str(models / "sees"), answer_tokens=8).answer(
        Question(prompt, (), (shown(folder, name),))
    )
    reply = ask("a.png")
    assert 0 < reply.tokens_out <= 8 and not reply.refused
    assert reply.tokens_in == 4 + len(prompt.text.encode())  # the picture's patches, and a token a byte
    assert ask("a.png") == reply and ask("b.png").key != reply.key


def test_the_picture_counts(models, folder):
    """Other pixels under the same prompt give other first logits: the picture is seen, not only named."""
    model = LocalModel(str(models / "sees"), answer_tokens=1)
    processor, network, sees = model._loaded
    logits = []
    network.generate = lambda **inputs: (
        logits.append(network(**inputs_of(inputs)).logits[0, -1]),
        inputs["input_ids"],
    )[1]
    inputs_of = lambda inputs: {k: v for k, v in inputs.items() if k in ("input_ids", "attention_mask", "pixel_values")}
    for name in ("a.png", "b.png"):
        model._generate(
            processor, network, Question(read_prompts()["describe_reference"], (), (shown(folder, name),)), sees
        )
    assert (logits[0] - logits[1]).abs().max() > 1e-5


def test_a_pair_walks_through_both_models(models, folder, tmp_path):
    make = lambda name: lambda: LocalModel(str(models / name), answer_tokens=6)
    pipeline = Pipeline(
        pictures=folder_pictures(folder), make_model=make("sees"), make_writer=make("writes"),
        answers=tmp_path / "answers.sqlite", run="test",
    )  # fmt: skip
    (draft,) = run_local([Draft("a.png", "b.png")], pipeline, concurrency=1)
    assert draft.problem.startswith("describe reference: ")  # noise is no list
    things = json.dumps([{"object": "ball", "details": "red"}])
    values = (("reference", things), ("target", things), ("count", "2"), ("characters", "100"))
    reply = make("writes")().answer(Question(read_prompts()["difference"], values))
    assert reply.tokens_in > 100 and reply.tokens_out <= 6


def test_a_text_model_is_not_shown_pictures_and_no_folder_is_no_model(models, folder, tmp_path):
    question = Question(read_prompts()["describe_reference"], (), (shown(folder, "a.png"),))
    with pytest.raises(UserError, match=r"sees no pictures.*--writer"):
        LocalModel(str(models / "writes")).answer(question)
    with pytest.raises(UserError, match="can't be read"):
        LocalModel(str(tmp_path / "nowhere")).answer(question)
