"""SigLIP's two tokenizers: texts without a first token, in the form that training gave them, from whole files alone."""

import json
import shutil

import numpy as np
import pytest

from contextjax.tokenizers import TextTokenizer, train_tokenizer
from contextjax.types import UserError

TEXTS = ["make the big red car smaller", "replace the dog with two cats", "the tree is gone there are cups instead"]


def write_sentencepiece(folder, **settings):
    """A tokenizer as SigLIP's first version has it: Unigram, padding with the end of texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=specials, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 9, trainer)
    return _write(folder, tokenizer, {"eos_token": "</s>", "pad_token": {"content": "</s>"}, **settings})


def write_gemma(folder, **settings):
    """A tokenizer as SigLIP 2 has it: Gemma's BPE, which falls back to bytes."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # so that no token is two words
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=specials[:4], show_progress=False)
    trainer.initial_alphabet = []
    tokenizer.train_from_iterator(TEXTS * 9, trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    stored = json.loads(tokenizer.to_str())
    vocabulary = stored["model"]["vocab"]
    stored["model"]["vocab"] |= {piece: len(vocabulary) + byte for byte, piece in enumerate(specials[4:])}
    return _write(folder, Tokenizer.from_str(json.dumps(stored)), {"tokenizer_class": "GemmaTokenizer", **settings})


def _write(folder, tokenizer, settings):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=[write_sentencepiece, write_gemma], ids=["sentencepiece", "gemma"])
def folder(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("tokenizer"))


def test_a_text_begins_with_its_own_token_and_ends_with_eos_even_where_it_is_cut(folder):
    tokenizer = TextTokenizer.read(folder, length=40)
    short, long = tokenizer([TEXTS[0], TEXTS[0]]), tokenizer([TEXTS[0]], length=4)
    count = short.tokens.mask[0].sum()
    assert tokenizer.begin == 0 and short.tokens.ids[0, count - 1] == tokenizer.last
    assert (short.tokens.ids[0, count:] == tokenizer.pad).all() and not short.truncated.any()
    assert long.tokens.ids[0].tolist() == [*short.tokens.ids[0, :3], tokenizer.last] and long.truncated.all()
    assert tokenizer.pad == {"</s>": 1, "<pad>": 0}[tokenizer.specials[2]]


def test_capitals_are_small_and_the_first_version_has_no_punctuation(folder):
    tokenizer = TextTokenizer.read(folder, length=40)
    plain, odd = "replace the dog with two cats", "  Replace THE dog,\n with two -- cats!?"
    encode = lambda text: tokenizer([text]).tokens.ids[0].tolist()
    assert encode(plain) == encode(plain.title())
    assert (encode(odd) == encode(plain)) == (tokenizer.last == 1 and tokenizer.pad == 1)


def test_offsets_begin_at_the_word_and_not_at_the_space_before(folder):
    text = "Replace the dog"
    encoded = TextTokenizer.read(folder, length=40)([text])
    starts = encoded.offsets[0][encoded.tokens.mask[0]][:-1]
    words = {text[start:end] for start, end in starts if end > start}
    assert all(word == word.strip() for word in words) and starts[0].tolist()[::-1] != [0, 1]
    covered = {i for start, end in starts for i in range(start, end)}
    assert covered == {i for i, character in enumerate(text) if character != " "}


def test_a_saved_tokenizer_is_the_same(folder, tmp_path):
    tokenizer = TextTokenizer.read(folder, length=40)
    tokenizer.save(tmp_path / "tokenizer.json")
    for again in (TextTokenizer.read(tmp_path / "tokenizer.json", length=40), TextTokenizer.read(tmp_path, length=40)):
        assert again.specials == tokenizer.specials
        np.testing.assert_array_equal(again(["Two CATS, gone!"]).tokens.ids, tokenizer(["Two CATS, gone!"]).tokens.ids)


def test_one_that_is_trained_for_a_siglip_has_no_first_token(tmp_path):
    tokenizer = train_tokenizer(TEXTS, vocabulary=300, length=12, first=False)
    tokenizer.save(tmp_path / "tokenizer.json")
    again = TextTokenizer.read(tmp_path / "tokenizer.json", length=12)
    assert again.begin == tokenizer.begin == 0 and again.pad == tokenizer.pad == 1
    np.testing.assert_array_equal(again(TEXTS).tokens.ids, tokenizer(TEXTS).tokens.ids)


def test_what_is_no_whole_tokenizer_is_refused(folder, tmp_path):
    (tmp_path / "spiece.model").write_bytes(b"x")
    with pytest.raises(UserError, match=r"spiece\.model is SentencePiece's own file.*expected tokenizer\.json"):
        TextTokenizer.read(tmp_path, length=8)
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<nothing>"}))
    with pytest.raises(UserError, match="no token <nothing>"):
        TextTokenizer.read(copy, length=8)
