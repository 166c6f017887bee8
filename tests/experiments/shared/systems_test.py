"""Each system's module is found by the config, and what is cut or mixed is printed."""

from types import SimpleNamespace

from configs.context_blip import get_config as blip
from configs.pictograms import get_config as pictograms
from data_pipelines.mixtures import Mixture
from experiments.shared import context_blip, context_cir, systems


def test_a_config_has_the_module_of_its_system():
    assert systems.of(pictograms("tiny")) is context_cir and systems.of(blip("1,tiny")) is context_blip
    for module in systems.SYSTEMS.values():
        assert all(callable(getattr(module, name)) for name in
                   ("loss_weights", "make_samples", "make_phases", "abstract_batch", "text_limits"))  # fmt: skip


def test_cut_texts_and_the_shares_of_an_epoch_are_printed(monkeypatch, capsys, tmp_path):
    shares = [SimpleNamespace(per_epoch=30), SimpleNamespace(per_epoch=12)]
    samples = SimpleNamespace(
        truncations=lambda: [("texts", 3, 9, "text_length"), ("captions", 0, 9, "caption_length")], shares=shares
    )
    module = SimpleNamespace(make_samples=lambda *arguments, cuts: samples)
    monkeypatch.setattr(systems, "SYSTEMS", {"context_cir": module})
    data = object.__new__(Mixture)
    object.__setattr__(data, "sources", [SimpleNamespace(name="real"), SimpleNamespace(name="made")])
    assert systems.make_samples(pictograms("tiny"), data, None, tmp_path) is samples
    said = capsys.readouterr().out.splitlines()
    assert said == ["3 of 9 texts are longer than 24 tokens and were cut (data.text_length).",
                    "An epoch has 42 samples: 30 of real, 12 of made."]  # fmt: skip
