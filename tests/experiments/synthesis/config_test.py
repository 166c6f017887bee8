"""Settings are checked against each other, and every field is a flag."""

import dataclasses

import pytest

from contextjax.types import UserError
from experiments.synthesis.config import SynthesisConfig
from tests.commands import in_process

GIVEN = {"data": "set", "target": "made", "backend": "openai"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": None}, "Expected --data=SET"),
        ({"pictures": "x"}, "Expected --data=SET"),
        ({"data": None, "pictures": "."}, "lies in --pictures"),
        ({"data": None, "pictures": "x"}, "give it as --workdir"),
        ({"agreement": 0.1}, "--agreement needs a CLIP"),
        ({"backend": "rules", "batch": "x"}, "--batch is for --backend=openai; got --backend=rules"),
        ({"batch": "x", "cluster": "auto"}, "leave out --cluster"),
        ({"target": "gs://bucket/made", "data": None, "pictures": "x"}, "is in an object store"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        SynthesisConfig(**GIVEN | changes)


def test_a_band_is_two_cosines():
    assert SynthesisConfig(**GIVEN).cosines == (0.75, 0.95)
    for band in (("0.5",), ("0.5", "x"), ()):
        with pytest.raises(UserError, match=r"--band is .*; expected two cosines, as 0\.75,0\.95"):
            _ = SynthesisConfig(**GIVEN, band=band).cosines


def test_every_field_is_a_flag_with_its_sentence_and_bounds():
    done = in_process("synthesize", "--help")
    for field in dataclasses.fields(SynthesisConfig):
        assert f"--{field.name}:" in done.stdout or f"--[no]{field.name}:" in done.stdout
    done = in_process("synthesize", "--group=1")
    assert done.returncode == 2 and "--group" in done.stderr
    done = in_process("synthesize", "--backend=magic")
    assert done.returncode == 2 and "openai|transformers|rules" in done.stderr
