"""Tokenizers: offsets point at the words, special tokens surround them, and those of checkpoints are read."""

import json
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from contextjax.tokenizers import (
    BOS,
    EOS,
    PAD,
    TextTokenizer,
    split_propositions,
    tokenize_propositions,
    train_tokenizer,
)
from contextjax.types import UserError

TEXTS = [
    "Make the big red car smaller, and put it left of the tree.",
    "Replace the dog with two cats.",
    "The tree is gone; there are 12 cups instead.",
]
ODD = ["", "   ", "🎉👩‍👩‍👧 red", "日本語の文", "a\x00b\x07\x1b[0m", "\u200b\u202e", "é" * 50, "\n\t the \r\n", "ﬁ İ ß"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 4, vocabulary=340, length=16)


def ids_of(tokenizer):
    return [tokenizer._tokenizer.token_to_id(name) for name in (BOS, EOS, PAD)]


def test_bos_text_eos_padding(tokenizer):
    bos, eos, pad = ids_of(tokenizer)
    encoded = tokenizer([*TEXTS, "cat", ""])
    ids, mask = encoded.tokens
    assert ids.dtype == np.int32 and mask.dtype == bool and ids.shape == mask.shape == (5, 16)
    for row, real in zip(ids, mask, strict=True):
        count = real.sum()
        assert real[:count].all() and not real[count:].any()
        assert row[0] == bos and row[count - 1] == eos and (row[count:] == pad).all()
        assert not np.isin(row[1 : count - 1], [bos, eos, pad]).any()
    assert mask[-1].sum() == 2


def test_offsets_are_the_characters_of_each_token(tokenizer):
    text = "Put the red tree left of 12 cups!"
    encoded = tokenizer([text], length=40)
    inner = encoded.offsets[0][1 : encoded.tokens.mask[0].sum() - 1]
    assert "".join(text[a:b] for a, b in inner) == text.replace(" ", "")
    for word in ("red", "tree", "cups"):
        begin = text.index(word)
        covered = [(a, b) for a, b in inner if a < begin + len(word) and b > begin]
        assert (covered[0][0], covered[-1][1]) == (begin, begin + len(word))
    outside = encoded.offsets[0][[0, *range(encoded.tokens.mask[0].sum() - 1, 40)]]
    assert not outside.any()


@pytest.mark.parametrize("text", ["👩‍👩‍👧 the tree", "日本 tree", "  \t tree", "e\u0301 tree", "ẞ tree"])
def test_offsets_count_characters_also_behind_odd_ones(tokenizer, text):
    encoded = tokenizer([text], length=40)
    begin = text.index("tree")
    inner = encoded.offsets[0][encoded.tokens.mask[0]]
    covered = [(a, b) for a, b in inner if b > begin]
    assert (covered[0][0], covered[-1][1]) == (begin, len(text))


def test_longer_texts_are_cut_and_marked(tokenizer):
    long = "cat tree dog " * 20
    encoded = tokenizer([long, "cat"])
    assert encoded.truncated.tolist() == [True, False]
    assert encoded.tokens.mask[0].all() and encoded.tokens.ids[0, -1] == ids_of(tokenizer)[1]
    assert encoded.offsets[0].max() < len(long)
    whole = tokenizer([long], length=200)
    assert not whole.truncated[0]
    np.testing.assert_array_equal(whole.tokens.ids[0, :15], encoded.tokens.ids[0, :15])
    exact = int(whole.tokens.mask[0].sum())
    assert not tokenizer([long], length=exact).truncated[0]
    assert tokenizer([long], length=exact - 1).truncated[0]


def test_case_and_spaces_do_not_matter(tokenizer):
    a, b = tokenizer(["The RED  tree", "the red tree"]).tokens.ids
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_do_not_crash(tokenizer, text):
    encoded = tokenizer([text])
    assert encoded.tokens.ids.max() < tokenizer.vocabulary
    assert encoded.offsets.max() <= len(text)


def test_a_text_cannot_say_the_special_tokens(tokenizer):
    bos, eos, pad = ids_of(tokenizer)
    encoded = tokenizer([f"a {EOS} tree {PAD}"], length=60)
    inner = encoded.tokens.ids[0][1 : encoded.tokens.mask[0].sum() - 1]
    assert not np.isin(inner, [bos, eos, pad]).any()


def test_a_saved_tokenizer_is_read_back(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    again = TextTokenizer.read(tmp_path / "tokenizer.json", length=16)
    assert again.vocabulary == tokenizer.vocabulary
    a, b = tokenizer(TEXTS + ODD), again(TEXTS + ODD)
    np.testing.assert_array_equal(a.tokens.ids, b.tokens.ids)
    np.testing.assert_array_equal(a.offsets, b.offsets)


def test_the_same_texts_give_the_same_tokenizer(tokenizer, tmp_path):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    tokenizer.save(files[0])
    train_tokenizer(iter(TEXTS * 4), vocabulary=340, length=16).save(files[1])
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_vocabulary_is_at_most_what_was_asked(tokenizer):
    assert 259 < tokenizer.vocabulary <= 340
    assert train_tokenizer(["a"], vocabulary=340, length=4).vocabulary <= 340


def test_a_tokenizer_without_the_special_tokens_is_refused():
    from tokenizers import Tokenizer, models

    with pytest.raises(UserError, match=r"no token .*startoftext.*endoftext.*pad"):
        TextTokenizer(Tokenizer(models.BPE()), length=8)


def test_no_texts_are_no_rows(tokenizer):
    assert tokenizer([]).tokens.ids.shape == (0, 16)


# ------------------------------------------------------------------- tokenizers of checkpoints

MERGES = ["t h", "th e</w>", "r e", "re d</w>", "t re", "tre e</w>", "c a", "ca t</w>", "' s</w>", "! !</w>"]
BERT = "[PAD] [UNK] [CLS] [SEP] [MASK] the red tree ##s cafe cat , ! 日 The".split()


@pytest.fixture
def clip_folder(tmp_path):
    """CLIP's files with ten merges. The symbols of bytes stand in the order of their code points."""
    from tokenizers import pre_tokenizers

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), *(merge.replace(" ", "") for merge in MERGES)]
    ids = {token: id for id, token in enumerate([*tokens, BOS, EOS])}
    (tmp_path / "vocab.json").write_text(json.dumps(ids))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    return tmp_path


@pytest.fixture
def bert_folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*BERT, ""]))
    return tmp_path


def words_of(tokenizer, text, length=40):
    """The tokens of a text, without the padding."""
    ids, mask = tokenizer([text], length=length).tokens
    return [tokenizer._tokenizer.id_to_token(int(id)) for id in ids[0][mask[0]]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the red tree", "the</w> red</w> tree</w>"),
        ("The\tRED \n tree", "the</w> red</w> tree</w>"),
        ("\u3000cat\u00a0", "cat</w>"),
        ("cat's", "cat</w> 's</w>"),
        ("CAT'S", "cat</w> 's</w>"),
        ("it's the", "i t</w> 's</w> the</w>"),
        ("don't", "d o n</w> ' t</w>"),
        ("the12", "the</w> 1</w> 2</w>"),
        ("catcat", "ca t cat</w>"),
        ("retree", "re tree</w>"),
        ("!!", "!!</w>"),
        ("!!!", "! !!</w>"),
        ("cat!!", "cat</w> !!</w>"),
        ("a", "a</w>"),
        ("é", "Ã ©</w>"),
        ("É", "Ã ©</w>"),
        ("e\u0301", "Ã ©</w>"),
        ("🎉 cat", "ð Ł İ ī</w> cat</w>"),
        ("日", "æ Ĺ ¥</w>"),
        ("\x00", "Ā</w>"),
        ("", ""),
        (" \n ", ""),
        (EOS, "< |</w> e n d o f t e x t</w> | ></w>"),
    ],
)
def test_clips_tokens(clip_folder, text, expected):
    """Merges by hand; bytes that don't print are letters from U+0100 on."""
    assert words_of(TextTokenizer.read(clip_folder, length=8), text) == [BOS, *expected.split(), EOS]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The RED trees, café!", "the red tree ##s , cafe !"),
        ("cafe\u0301", "cafe"),
        ("zebra", "[UNK]"),
        ("cat日cat", "cat 日 cat"),
        ("c\u200ba\x00t", "cat"),
        ("cat" * 40, "[UNK]"),
        ("", ""),
        ("[SEP]", "[UNK] [UNK] [UNK]"),
    ],
)
def test_berts_tokens(bert_folder, text, expected):
    assert words_of(TextTokenizer.read(bert_folder, length=8), text) == ["[CLS]", *expected.split(), "[SEP]"]


def test_case_follows_the_checkpoint(bert_folder):
    (bert_folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    cased = TextTokenizer.read(bert_folder, length=8)
    assert words_of(cased, "The the") == ["[CLS]", "The", "the", "[SEP]"]
    cased.save(bert_folder / "tokenizer.json")  # comes before vocab.txt
    assert words_of(TextTokenizer.read(bert_folder, length=8), "The the") == ["[CLS]", "The", "the", "[SEP]"]
    (bert_folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert words_of(TextTokenizer.read(bert_folder, length=8), "The the") == ["[CLS]", "the", "the", "[SEP]"]


def test_clip_pads_with_the_last_token_unless_the_checkpoint_says_otherwise(clip_folder):
    pad = lambda: words_of_padding(TextTokenizer.read(clip_folder, length=4))
    words_of_padding = lambda tokenizer: tokenizer._tokenizer.id_to_token(int(tokenizer(["a"]).tokens.ids[0, -1]))
    assert pad() == EOS
    (clip_folder / "special_tokens_map.json").write_text('{"pad_token": {"content": "!"}}')
    assert pad() == "!"
    (clip_folder / "tokenizer_config.json").write_text('{"pad_token": "#"}')
    assert pad() == "!"
    (clip_folder / "tokenizer_config.json").write_text('{"pad_token": "#", "added_tokens_decoder": {}}')
    assert pad() == "#"  # such a config is newer than the map


@pytest.mark.parametrize(
    "text", ["the  tree", "\t the\r\n tree", "🎉 the tree", "e\u0301 the tree", "İ日本 the tree", "the\x00 tree"]
)
@pytest.mark.parametrize("kind", ["clip", "bert"])
def test_offsets_of_checkpoints_are_characters(kind, text, request):
    tokenizer = TextTokenizer.read(request.getfixturevalue(f"{kind}_folder"), length=40)
    encoded = tokenizer([text])
    names, inner = words_of(tokenizer, text), encoded.offsets[0].tolist()
    for word in ("the", "tree"):
        place = names.index(word + "</w>" * (kind == "clip"))
        assert text[slice(*inner[place])].rstrip("\x00") == word


@pytest.mark.parametrize("kind", ["trained", "clip", "bert"])
@pytest.mark.parametrize("word", ["cafe\u0301", "café", "n\u0303a\u0303", "\u1112\u1161\u11ab", "cat\u200d日"])
def test_a_word_ends_behind_its_last_accent(kind, word, request, tokenizer):
    """A phrase that ends with an accent is whole, whether the normalizer composes, drops or keeps the accent."""
    if kind != "trained":
        tokenizer = TextTokenizer.read(request.getfixturevalue(f"{kind}_folder"), length=40)
    text = f"the {word} tree"
    offsets = tokenizer([text], length=40).offsets[0]
    ends = {end for start, end in offsets.tolist() if 4 <= start < 4 + len(word)}
    assert max(ends) == 4 + len(word)
    cut = tokenizer([text], length=3).offsets[0]  # what is cut off is not taken in
    assert cut[1].tolist() == offsets[1].tolist() and not cut[2].any()


def test_blips_two_tokens(bert_folder):
    plain, blip = (TextTokenizer.read(bert_folder, length=6, first=first) for first in (None, "[ENC]"))
    assert (plain.vocabulary, blip.vocabulary) == (len(BERT), len(BERT) + 2)
    a, b = (tokenizer(["the cat [ENC]"]).tokens.ids[0] for tokenizer in (plain, blip))
    assert (a[0], b[0]) == (BERT.index("[CLS]"), len(BERT) + 1)
    np.testing.assert_array_equal(a[1:], b[1:])
    (bert_folder / "vocab.txt").write_text("\n".join([*BERT, "[DEC]", "[ENC]"]))
    assert TextTokenizer.read(bert_folder, length=6, first="[ENC]").vocabulary == len(BERT) + 2


def test_the_vocabulary_reaches_to_the_largest_id(clip_folder):
    ids = json.loads((clip_folder / "vocab.json").read_text())
    (clip_folder / "vocab.json").write_text(json.dumps({**ids, EOS: 999}))
    assert TextTokenizer.read(clip_folder, length=6).vocabulary == 1000


@pytest.mark.parametrize("kind", ["clip", "bert"])
def test_a_saved_checkpoint_tokenizer_is_whole(kind, request, tmp_path):
    """Other readers of the file add its special tokens to a text, and find its own truncation."""
    from tokenizers import Tokenizer

    folder, text = request.getfixturevalue(f"{kind}_folder"), "the red tree, the cat"
    tokenizer = TextTokenizer.read(folder, length=20)
    tokenizer.save(tmp_path / "tokenizer.json")
    bare = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert bare.encode(text).tokens == words_of(tokenizer, text)
    bare.enable_truncation(4)
    bare.enable_padding(length=9)
    bare.save(str(tmp_path / "tokenizer.json"))
    again = TextTokenizer.read(tmp_path / "tokenizer.json", length=20)
    assert words_of(again, text) == words_of(tokenizer, text)
    again.save(tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads((tmp_path / "tokenizer.json").read_text())


def test_unreadable_tokenizers_are_reported_in_a_sentence(tmp_path, clip_folder):
    from tokenizers import Tokenizer, models

    read = lambda source, **options: TextTokenizer.read(source, length=8, **options)
    with pytest.raises(UserError, match=r"no tokenizer at .*nowhere; expected tokenizer.json, vocab.json with merges"):
        read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no tokenizer at .*empty"):
        read(tmp_path / "empty")
    with pytest.raises(UserError, match=r"no token \[CLS2\]; use one that"):
        read(clip_folder, first="[CLS2]")
    for merges in ("t h\nnot a merge\n", "t h\nt", "<svg></svg>"):
        (clip_folder / "merges.txt").write_text(merges)
        with pytest.raises(UserError, match=r"vocab.json can't be read as a tokenizer .*copy it again"):
            read(clip_folder)
    (clip_folder / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"can't be read as a tokenizer .*merges.txt"):
        read(clip_folder)
    (clip_folder / "vocab.json").write_text("[1]")
    with pytest.raises(UserError, match=r"can't be read as a tokenizer .*copy it again"):
        read(clip_folder)
    for junk in (b"{", b"[]", b"null", b'{"a": 1}', b"\xff\xfe\x00", b""):
        (tmp_path / "tokenizer.json").write_bytes(junk)
        with pytest.raises(UserError, match=r"tokenizer.json can't be read as a tokenizer"):
            read(tmp_path)
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="of kind WordLevel; expected a BPE"):
        read(tmp_path)
    for settings in ("{", "[]"):
        (tmp_path / "tokenizer_config.json").write_text(settings)
        with pytest.raises(UserError, match=r"tokenizer_config.json .*copy it from the checkpoint again"):
            read(tmp_path)


def test_a_folder_chooses_no_class_and_no_file(clip_folder, tmp_path_factory):
    """Neither code, nor a class of transformers, nor a file elsewhere is read because the folder names it."""
    expected = words_of(TextTokenizer.read(clip_folder, length=8), "the cat's")
    (clip_folder / "code.py").write_text("raise SystemExit('run')")
    (clip_folder / "config.json").write_text('{"model_type": "t5", "auto_map": {"AutoConfig": "code.Config"}}')
    settings = {"tokenizer_class": "BertModel", "auto_map": {"AutoTokenizer": ["code.Tokenizer", "code.Tokenizer"]}}
    (clip_folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert words_of(TextTokenizer.read(clip_folder, length=8), "the cat's") == expected
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "vocab.json"
    elsewhere.write_text((clip_folder / "vocab.json").read_text())
    for key in ("vocab", "tokenizer_file"):
        (clip_folder / "tokenizer_config.json").write_text(json.dumps({key: str(elsewhere)}))
        with pytest.raises(UserError, match=f"tokenizer_config.json holds the setting {key}, .*remove it"):
            TextTokenizer.read(clip_folder, length=8)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_files_that_are_too_large_are_refused(clip_folder, name, monkeypatch):
    monkeypatch.setattr("contextjax.tokenizer_files.MAX_FILE_BYTES", 20_000)
    (clip_folder / name).write_text(" " * 20_001)
    with pytest.raises(UserError, match=f"{name} has 20,001 bytes; a tokenizer's file has at most 20,000"):
        TextTokenizer.read(clip_folder, length=8)


def test_saved_tokenizers_are_read_without_transformers(tokenizer, bert_folder, tmp_path_factory):
    TextTokenizer.read(bert_folder, length=8).save(bert_folder / "saved.json")
    folder = tmp_path_factory.mktemp("trained")
    tokenizer.save(folder / "tokenizer.json")
    code = (
        "import sys, pathlib; from contextjax.tokenizers import TextTokenizer\n"
        "for path in sys.argv[1:]: TextTokenizer.read(pathlib.Path(path), length=8)(['the cat'])\n"
        "sys.exit('transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, bert_folder / "saved.json", folder], check=True)


@pytest.mark.long
def test_reading_a_checkpoint_prints_nothing(bert_folder):
    """Without PyTorch, transformers prints advice when it is imported."""
    code = (
        "import sys, pathlib; from contextjax.tokenizers import TextTokenizer\n"
        "TextTokenizer.read(pathlib.Path(sys.argv[1]), length=8)"
    )
    command = [sys.executable, "-W", "error", "-c", code, bert_folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


@pytest.mark.parametrize("missing", ["[CLS]", "[SEP]", "[PAD]", "[UNK]"])
def test_a_vocabulary_without_a_special_token_is_refused(bert_folder, missing):
    (bert_folder / "vocab.txt").write_text("\n".join(token for token in BERT if token != missing))
    with pytest.raises(UserError, match=rf"no token \{missing[:-1]}\]; use"):
        TextTokenizer.read(bert_folder, length=8)


# ---------------------------------------------------------------------------------------- propositions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A man sits; two dogs run past him. Nobody looks at the camera.",
         ["A man sits; two dogs run past him.", "Nobody looks at the camera."]),
        ("The dog is left of the bus, and nothing is in the top right.",
         ["The dog is left of the bus", "nothing is in the top right."]),
        ("The dog is in the top left, and it is not small.", ["The dog is in the top left, and it is not small."]),
        ("In this picture, the fox is small. No bus can be seen.",
         ["In this picture, the fox is small.", "No bus can be seen."]),
        ("a plain text", ["a plain text"]),
        ("Nothing is at the bottom. \n", ["Nothing is at the bottom."]),
        ("", [""]),
    ],
)  # fmt: skip
def test_a_text_is_split_into_its_clauses(text, expected):
    assert split_propositions(text, 6) == expected


@hypothesis.given(st.lists(st.sampled_from([*"abc", "the", "and", "it", "no", ", ", ". ", "; ", " "])).map(" ".join),
                  st.integers(1, 6))  # fmt: skip
def test_propositions_lose_no_word_but_those_that_join_them(text, limit):
    pieces = split_propositions(text, limit)
    assert 1 <= len(pieces) <= limit
    words = lambda text: [word for word in text.replace(",", " ").split() if word not in ("and", ",")]
    assert words(" ".join(pieces)) == words(text)
    assert all(len(piece.split()) >= 4 for piece in pieces[:-1])


def test_propositions_are_rows_of_a_text(tokenizer):
    texts = ["the tree is gone now; there are two cups. make the car big and red", "the car"]
    (ids, mask), cut = tokenize_propositions(tokenizer, texts, limit=4, length=7)
    assert ids.shape == mask.shape == (2, 3, 7) and cut.tolist() == [True, False]
    assert mask.any(-1).tolist() == [[True, True, True], [True, False, False]]
    for text, row in zip(texts, ids, strict=True):
        pieces = split_propositions(text, 4)
        np.testing.assert_array_equal(row[: len(pieces)], tokenizer(pieces, length=7).tokens.ids)


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [("a dog", r"The texts are 'a dog', a str; expected a list"), (b"a dog", "a bytes; expected a list"),
     ([b"a dog"], "a bytes; expected a str"), ([None], "a NoneType; expected a str")],
)  # fmt: skip
def test_what_is_no_list_of_texts_is_refused(texts, sentence):
    tokenizer = train_tokenizer(["a dog"], vocabulary=259, length=8)
    with pytest.raises(UserError, match=sentence):
        tokenizer(texts)


def test_a_template_is_around_the_text_and_offsets_are_the_text_s():
    from contextjax.tokenizers import tokenize_queries

    texts = ["make the dog red", "two dogs * left"]
    tokenizer = train_tokenizer([*texts, "a photo of * that find"], vocabulary=300, length=40)
    plain, around = tokenizer(texts), tokenize_queries(tokenizer, texts, "find {} a photo")
    assert (around.tokens.ids >= 0).all()
    for row, text in enumerate(texts):
        pieces = {text[start:end] for start, end in around.offsets[row] if start < end}
        assert "".join(sorted(pieces)) and max(around.offsets[row, :, 1]) <= len(text)
        assert set(map(tuple, plain.offsets[row])) - {(0, 0)} <= set(map(tuple, around.offsets[row]))
    np.testing.assert_array_equal(tokenize_queries(tokenizer, texts).tokens.ids, plain.tokens.ids)


@pytest.mark.parametrize("template", ["a photo of * that {}", "{} of *"])
def test_only_the_template_s_star_is_a_slot(template):
    from contextjax.tokenizers import tokenize_queries
    from contextjax.types import SLOT

    texts = ["two dogs * left", "dog"]
    tokenizer = train_tokenizer([*texts, "a photo of * that"], vocabulary=300, length=40)
    ids, _ = tokenize_queries(tokenizer, texts, template).tokens
    whole = tokenizer([template.replace("{}", text) for text in texts])
    star = template.index("*") if template.startswith("a") else None
    for row, text in enumerate(texts):
        place = len(text) + 4 if star is None else star
        inside = (whole.offsets[row, :, 0] <= place) & (place < whole.offsets[row, :, 1])
        np.testing.assert_array_equal(ids[row] == SLOT, inside)
        assert inside.any()
        np.testing.assert_array_equal(ids[row][~inside], whole.tokens.ids[row][~inside])
