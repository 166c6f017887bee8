"""Ids and masks are those of transformers' tokenizers of CLIP, BERT and SigLIP."""

import json
import random
import re
import shutil
import string

import numpy as np
import pytest

from contextjax.tokenizers import TextTokenizer
from tests.tokenizer_files_test import write_gemma, write_sentencepiece

pytestmark = pytest.mark.parity

WORDS = "a the same but with two red dogs cat's don't we'll running upside-down Köln naïve İstanbul straße OF A".split()
PIECES = [  # what a text is strung together of, by kind
    WORDS,
    [str(n) for n in (0, 7, 42, 1999, 3.14159, 10**20)] + ["½", "Ⅷ", "٣٤٥", "1,000.50", "²"],
    ["!", "?!?!", "...", "--", "'s", "''ll", "</w>", "&amp;", "<b>", "@@", "##ing", "[", "_", "`~^", "“”", "…", "¿"],
    ["🎉", "👩‍👩‍👧", "🏳️‍🌈", "👍🏽", "❤️", "🇩🇪", "☃"],
    ["日本語の文", "中", "한국어", "ไทย", "हिन्दी", "العربية", "עברית", "Ελλάς", "Русский", "ﷺ", "ﬁ"],
    ["e\u0301", "n\u0303o", "\u1100\u1161\u11a8", "a\u0308\u0304", "\u0301", "Å", "ẞ", "ǆ", "z̷̡̛"],
    ["\x00", "\x07", "\x1b[0m", "\x7f", "\u200b", "\u200d", "\u202e", "\ufeff", "\ufffd", "\u00ad", "\ue000"],
    [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2028", "\x85", "\x0b", "\x1c", "", ""],
]


def texts(count: int, *, seed: int) -> list[str]:
    """Strings of every kind: short and long, glued and spaced, and a few that are extreme."""
    rng = random.Random(seed)
    anything = lambda: chr(rng.choice([*range(1, 0x300)] if rng.random() < 0.7 else [rng.randrange(0x300, 0xD800)]))
    astral = lambda: chr(rng.randrange(0x10000, 0x110000))
    strings = ["", " ", "\n\t ", "\u200b", "\x00", "'", "a" * 10_000, "é" * 10_000, "日" * 10_000, "🎉" * 10_000]
    strings += ["".join(rng.choice(WORDS) + " " for _ in range(2_000)), "!" * 10_000, " " * 10_000 + "x"]
    while len(strings) < count:
        pieces = []
        for _ in range(rng.choice([1, 2, 4, 8, 20, 60])):
            kind = rng.random()
            pieces.append(
                rng.choice(WORDS)
                if kind < 0.5
                else rng.choice(rng.choice(PIECES))
                if kind < 0.9
                else "".join(anything() for _ in range(rng.randrange(1, 9)))
                if kind < 0.98
                else astral()
            )
        strings.append(rng.choice([" ", " ", ""]).join(pieces))
    return strings


def assert_same(ours, theirs, texts, *, length):
    encoded = ours(texts, length=length)
    expected = theirs(texts, padding="max_length", truncation=True, max_length=length, return_tensors="np")
    same = (encoded.tokens.ids == expected["input_ids"]).all(-1)
    same &= (encoded.tokens.mask == expected["attention_mask"]).all(-1)
    assert same.all(), f"{(~same).sum()} differ, the first {texts[int((~same).argmax())][:200]!r}"
    return int(same.sum())


def offsets_are_in_order(encoded, texts):
    for text, mask, offsets in zip(texts, encoded.tokens.mask, encoded.offsets, strict=True):
        inner = offsets[mask][1:-1]
        assert (
            (inner[:, 0] <= inner[:, 1]).all()
            and (np.diff(inner[:, 0]) >= 0).all()
            and inner.max(initial=0) <= len(text)
        )


@pytest.fixture(scope="module")
def clip(clip_folder):
    from transformers import CLIPTokenizer

    return TextTokenizer.read(clip_folder, length=77), CLIPTokenizer.from_pretrained(clip_folder)


@pytest.fixture(scope="module")
def bert(minilm):
    from transformers import BertTokenizer

    return TextTokenizer.read(minilm, length=64), BertTokenizer.from_pretrained(minilm)


def test_published_ids(clip, bert):
    """The ids are those of OpenAI's and Google's own tokenizers."""
    photo = clip[0](["a photo of a cat"], length=8).tokens.ids[0]
    assert photo.tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 49407]
    assert clip[0].vocabulary == 49408
    hello = bert[0](["Hello, world!"], length=8).tokens.ids[0]
    assert hello.tolist() == [101, 7592, 1010, 2088, 999, 102, 0, 0]
    assert bert[0].vocabulary == 30522


@pytest.mark.parametrize("length", [77, 5])
def test_clip_gives_the_same_ids_and_masks(clip, length):
    assert assert_same(*clip, texts(5000, seed=1), length=length) == 5000


@pytest.mark.parametrize("length", [64, 5])
def test_bert_gives_the_same_ids_and_masks(bert, length):
    assert assert_same(*bert, texts(5000, seed=2), length=length) == 5000


def test_offsets_run_through_the_text(clip, bert):
    for (ours, _), seed in ((clip, 3), (bert, 4)):
        offsets_are_in_order(ours(texts(1000, seed=seed)), texts(1000, seed=seed))


def test_spelled_out_specials_are_text_as_with_split_special_tokens(clip, bert, clip_folder, minilm):
    """The one deliberate difference: by default theirs reads them as the special tokens."""
    said = ["a <|endoftext|> b", "<|startoftext|>", "x[SEP]y [CLS] [MASK] [PAD]", "[UNK]"]
    for (ours, theirs), folder in ((clip, clip_folder), (bert, minilm)):
        assert_same(ours, type(theirs).from_pretrained(folder, split_special_tokens=True), said, length=40)
        with pytest.raises(AssertionError, match="differ"):
            assert_same(ours, theirs, said, length=40)


@pytest.mark.parametrize("lower", [False, True])
def test_case_follows_the_checkpoint(minilm, tmp_path, lower):
    from transformers import BertTokenizer

    said = texts(500, seed=5)
    for name in ("vocab.txt", "tokenizer.json"):  # from either file
        folder = tmp_path / name.split(".")[0]
        folder.mkdir()
        shutil.copy(minilm / name, folder)
        settings = {"do_lower_case": lower, "strip_accents": not lower, "tokenize_chinese_chars": lower}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        assert_same(TextTokenizer.read(folder, length=40), BertTokenizer.from_pretrained(folder), said, length=40)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_padding_follows_the_checkpoint(clip_folder, tmp_path, file):
    from transformers import CLIPTokenizer

    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    (folder / file).write_text(json.dumps({"pad_token": "!"}))
    ours = TextTokenizer.read(folder, length=20)
    assert ours(["cat"]).tokens.ids[0, -1] == 0
    theirs = CLIPTokenizer.from_pretrained(folder, split_special_tokens=True)  # "!" is a special token now
    assert_same(ours, theirs, texts(500, seed=6), length=20)


def test_what_is_saved_is_read_as_the_original(clip, bert, minilm, tmp_path):
    """By this library, by transformers with and without knowing the class, and by bare `tokenizers`."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    said = texts(1000, seed=7)
    for (ours, theirs), pad in ((clip, "<|endoftext|>"), (bert, "[PAD]")):
        folder = tmp_path / type(theirs).__name__
        folder.mkdir()
        ours.save(folder / "tokenizer.json")
        assert_same(TextTokenizer.read(folder, length=40), theirs, said, length=40)
        assert_same(ours, type(theirs).from_pretrained(folder), said, length=40)
        plain = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token=pad)
        assert_same(ours, plain, said, length=40)
    bare, original = (Tokenizer.from_file(str(f / "tokenizer.json")) for f in (tmp_path / "BertTokenizer", minilm))
    assert bare.truncation == original.truncation and bare.padding == original.padding
    assert bare.encode("Hello, world!").ids == original.encode("Hello, world!").ids


def test_blips_two_tokens_stand_behind_berts_vocabulary(bert, minilm):
    ours = TextTokenizer.read(minilm, length=20, first="[ENC]")
    assert ours.vocabulary == 30524
    ids, usual = (tokenizer(["A woman with a dog [ENC]"]).tokens.ids[0] for tokenizer in (ours, bert[0]))
    assert ids[0] == 30523 and usual[0] == 101
    np.testing.assert_array_equal(ids[1:], bert[0](["A woman with a dog [ENC]"], length=20).tokens.ids[0, 1:])


@pytest.mark.parametrize("length", [64, 5])
def test_siglip_2_gives_the_ids_of_its_class(tmp_path, length):
    """EOS behind the text and padding are added here: published folders say so in settings of their own."""
    from transformers import Siglip2Tokenizer

    folder = write_gemma(tmp_path)
    ours, said = TextTokenizer.read(folder, length=length), texts(2000, seed=5)
    theirs = Siglip2Tokenizer.from_pretrained(folder, split_special_tokens=True)
    encoded = ours(said).tokens
    for text, ids, mask in zip(said, encoded.ids.tolist(), encoded.mask.sum(-1), strict=True):
        expected = theirs(text, add_special_tokens=False)["input_ids"][: length - 1]
        assert ids == [*expected, 1, *[0] * (length - 1 - len(expected))] and mask == len(expected) + 1, text[:200]


def test_siglip_gives_the_ids_of_what_its_class_makes_of_a_text(tmp_path):
    """The class itself needs sentencepiece: what it does to a text is written out, and the model is the same."""
    from transformers import PreTrainedTokenizerFast

    folder = write_sentencepiece(tmp_path)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    remove = str.maketrans("", "", string.punctuation)
    strange = re.compile("[\x1c-\x1f\x85Σ\u0345]")  # white space and capitals that Rust's tables have otherwise
    said = [text for text in texts(2000, seed=6) if not strange.search(text)]
    encoded = TextTokenizer.read(folder, length=40)(said).tokens
    for text, ids in zip(said, encoded.ids.tolist(), strict=True):
        canonical = re.sub(r"\s+", " ", text.lower().translate(remove)).strip()
        expected = theirs(canonical, add_special_tokens=False)["input_ids"][:39]
        assert ids == [*expected, 1, *[1] * (39 - len(expected))], text[:200]
