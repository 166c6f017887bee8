"""The local backend on models of transformers: a tiny LLaVA for pictures and a tiny Llama for texts, random weights.

What they say is noise; that they are shown the picture and the prompt, and end, is what is tested.
"""

import json
import math

import numpy as np
import pytest
from PIL import Image

from contextjax.types import UserError
from data_pipelines.chat.local import LocalModel
from data_pipelines.chat.questions import Question, ShownPicture
from data_pipelines.judge.judge import read_prompts as read_judge_prompts
from data_pipelines.synthesis.drafts import Draft
from data_pipelines.synthesis.pairs import folder_pictures
from data_pipelines.synthesis.pipeline import Pipeline, run_pipeline
from data_pipelines.synthesis.stages import read_prompts
from tests.commands import in_process

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
    (draft,) = run_pipeline([Draft("a.png", "b.png")], pipeline, concurrency=1)
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


def test_log_probabilities_are_those_of_the_network(models, folder):
    """The first token's, from a pass of the network over the question alone."""
    import torch

    model = LocalModel(str(models / "sees"), answer_tokens=3, odds=20)
    question = Question(
        read_judge_prompts()["verify"], (("text", "red"),), (shown(folder, "a.png"),) * 2, labels=("1", "2")
    )
    inputs = {}
    processor, network, _ = model._loaded
    generate = network.generate
    network.generate = lambda **given: inputs.update(given) or generate(**given)
    reply = model.answer(question)
    asked = {name: inputs[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    with torch.no_grad():
        expected = network(**asked).logits[0, -1].log_softmax(-1)
    (first, others), *rest = json.loads(reply.odds)
    assert len(rest) <= 2 and len(others) <= 20 and first == processor.decode(expected.argmax())
    values, ids = expected.exp().topk(20)
    of_text = {}
    for id, value in zip(ids, values.tolist(), strict=True):  # bytes that are no text by themselves decode alike
        of_text[processor.decode(id)] = of_text.get(processor.decode(id), 0) + value
    assert {text: math.exp(p) for text, p in others.items()} == pytest.approx(of_text, abs=1e-6)
    assert model.parameters == sum(p.numel() for p in network.parameters())
    assert LocalModel(str(models / "sees"), answer_tokens=3).answer(question).odds == ""


def test_a_local_judge_whose_answers_are_noise_is_one_sentence(models, pictogram_sets, tmp_path):
    """A network with random weights names no picture: that is said, and no figure is written."""
    flags = ["--judge=transformers", f"--model={models / 'sees'}", f"--data={pictogram_sets}", "--protocol=imagecode"]
    done = in_process("evaluate", *flags, "--split=val", "--answer_tokens=2", f"--workdir={tmp_path}", "--window=2")
    said = [line for line in done.stderr.splitlines() if line and not line.startswith("Loading weights")]
    assert done.returncode == 2 and len(said) == 1
    assert "counts (the first is no JSON object" in done.stderr and not list(tmp_path.glob("evaluation*"))
    flags = [flag.replace("/sees", "/writes") for flag in flags]
    done = in_process("evaluate", *flags, "--split=val", "--answer_tokens=2", f"--workdir={tmp_path}", "--window=2")
    assert done.returncode == 2 and "sees no pictures; give a vision-language model as --model" in done.stderr


def test_a_local_judge_that_answers_is_scored_and_its_size_is_told(models, pictogram_sets, tmp_path, monkeypatch):
    monkeypatch.setattr(LocalModel, "_generate", lambda *given: ('{"picture": 1}', 30, 5, ""))
    flags = ["--judge=transformers", f"--model={models / 'sees'}", f"--data={pictogram_sets}", "--protocol=imagecode"]
    done = in_process("evaluate", *flags, "--split=val", f"--workdir={tmp_path}")
    assert done.returncode == 0 and "Parameters: " in done.stdout, done.stderr
    found = json.loads(next(tmp_path.glob("evaluation.judge.*")).read_text())
    assert found["judge"]["parameters"] > 1000 and found["judge"]["tokens_in"] == 30 * found["n_queries"]
