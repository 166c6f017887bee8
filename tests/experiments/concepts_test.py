"""concepts: texts, a tokenizer and figures, and what is missing."""

import json

from contextjax.tokenizers import train_tokenizer
from tests.commands import in_process


def test_phrases_of_a_list_are_counted(tmp_path):
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps([{"caption": "a red dog beside two cats"}, {"caption": "the small owl and it"}]))
    train_tokenizer(["a red dog beside two cats"], vocabulary=280, length=20).save(tmp_path / "tokenizer.json")
    flags = [f"--data={texts}", f"--tokenizer={tmp_path / 'tokenizer.json'}", "--length=20"]
    done = in_process("concepts", *flags)
    assert done.returncode == 0 and "texts/s in one process" in done.stdout, done.stderr
    assert "pronouns (data.pronouns=False leaves them out): 1 of 4 (25.00 %), 'it' 1" in done.stdout
    for lacking, sentence in ((flags[1:], "--data is missing"), (flags[:1], "--tokenizer is missing")):
        done = in_process("concepts", *lacking)
        assert done.returncode == 2 and sentence in done.stderr and done.stderr.count("\n") == 1
