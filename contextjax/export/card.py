"""Writes the model card of an export, README.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contextjax.spec import SystemSpec
from contextjax.types import listed

RANDOM = "random weights"  # where a run started from nothing


def make_card(manifest: Mapping[str, Any], spec: SystemSpec, *, recipe: Mapping[str, str] | None = None,
              evaluation: Mapping[str, Any] | None = None, parity: Mapping[str, Any] | None = None) -> str:  # fmt: skip
    """Returns the model card as Markdown.

    Args:
      manifest: the contents of export.json.
      spec: the contents of system.json.
      recipe: how the run was trained: the rows of a table, one of them "Started from"; None where that is not known.
      evaluation: the run's evaluation.json, where it belongs to this checkpoint.
      parity: the certificate, where there are programs.
    """
    sections = [
        f"---\nlibrary_name: contextjax\npipeline_tag: feature-extraction\n---\n# {spec.title}",
        f"Written by contextjax from {_origin(spec)}, in {manifest['dtype']}.",
        _recipe(spec, recipe, " `config.json` holds all of it."),
        _metrics(evaluation, " They are the live model's; the certificate says how far this export is from it."),
        _parity(parity), _pictures(spec, manifest), _usage(), _licence(spec, recipe),
    ]  # fmt: skip
    return "\n\n".join(section for section in sections if section) + "\n"


def about_run(spec: SystemSpec, recipe: Mapping[str, str] | None, evaluation: Mapping[str, Any] | None = None) -> str:
    """Returns what a card of a converted run says of it, as Markdown: its recipe and its metrics, where there are any.

    The arguments are those of `make_card`.
    """
    sections = (_recipe(spec, recipe), _metrics(evaluation) if evaluation else "")
    return "".join(f"\n{section}\n" for section in sections if section)


def _origin(spec: SystemSpec) -> str:
    config_hash, _, step = spec.fingerprint.rpartition("-")
    return f"step {step} of the training run with config {config_hash}" if config_hash else "published weights"


def _recipe(spec: SystemSpec, recipe: Mapping[str, str] | None, more: str = "") -> str:
    if not recipe:
        return ""
    vision, text = spec.vision, spec.text
    rows = {
        "Towers": f"vision {vision['layers']} x {vision['width']}, patches of {vision['patch_size']}; text "
                  f"{text['layers']} x {text['width']}; projection {spec.projection}",
        **recipe,
        "Computed in": spec.dtype,
    }  # fmt: skip
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"## Recipe\n\n| | |\n|---|---|\n{table}" + (f"\n\n{more.strip()}" if more else "")


def _data(evaluation: Mapping[str, Any]) -> str:
    """Returns the data set of an evaluation, as a part of a sentence; "" where it does not say."""
    data = evaluation.get("data")
    return f" of {listed([data['folder']])} (contents {data['identity']})" if isinstance(data, dict) else ""


def _metrics(evaluation: Mapping[str, Any] | None, more: str = "") -> str:
    if not evaluation:
        return "## Metrics\n\nNo evaluation of this checkpoint lay beside it (`experiments.evaluate` makes one)."
    metrics = {name: value for name, value in evaluation["metrics"].items() if value is not None}
    rows = "\n".join(f"| {name} | {value:.1f} |" for name, value in metrics.items())
    return (
        f"## Metrics\n\nProtocol {evaluation['protocol']}, split {evaluation['split']}{_data(evaluation)}: "
        f"{evaluation['n_queries']} "
        f"queries, {evaluation['n_gallery']} pictures, by '{evaluation['query']}'.{more}\n\n| | |\n|---|---|\n{rows}"
    )


def _parity(parity: Mapping[str, Any] | None) -> str:
    if not parity:
        return ""
    rows = "\n".join(
        f"| {form} | {name} | {max(batches.values()):.1e} |"
        for form, programs in parity["largest_difference"].items() for name, batches in programs.items()
    )  # fmt: skip
    apart = [max(batches.values()) for batches in parity["trained"]["largest_difference"].values()]
    trained = (
        f" The run was trained in {parity['trained']['dtype']}, which takes the live model up to {max(apart):.1e} from "
        f"itself in {parity['dtype']}." if apart else ""
    )  # fmt: skip
    return (
        f"## Parity with the live model\n\nAt most {parity['tolerance']:g} is allowed ({parity['difference']}). "
        f"Measured on {parity['hardware']}; `parity.json` has every batch and version.{trained}\n\n"
        f"| format | program | largest difference |\n|---|---|---|\n{rows}"
    )


def _pictures(spec: SystemSpec, manifest: Mapping[str, Any]) -> str:
    facts, (first, last, *_) = spec.preprocessing, manifest["tokenizer"]["specials"]
    cut = "the short side resized (bicubic, antialiased), the centre cut out"
    how = {"crop": cut, "crop_rounded": cut,
           "squash": "both sides resized (bicubic, antialiased)",
           "squash_bilinear": "both sides resized (bilinear, antialiased)",
           "targetpad": f"black put beside the short side until the long one is 1.25 times as long, {cut}",
           "squarepad": f"black put beside the short side until they are equal, {cut}"}[facts["fit"]]  # fmt: skip
    return (
        f"## Inputs\n\nPictures: uint8 [{facts['image_size']}, {facts['image_size']}, 3], RGB, {how}; scaling, mean "
        f"and std are in the programs. Texts: `tokenizer.json`, at most {spec.text_length} tokens, "
        f"{f'{first} first and ' if first else ''}{last} last; ids int32, mask true where a token is real."
    )


def _usage() -> str:
    return (
        "## Use\n\n```python\nimport contextjax\n\nsystem = contextjax.load(FOLDER)\n"
        'queries = system.encode_query(["q.png"], ["make the dog small"])  # float32 [B, D], L2-normalised\n'
        'gallery = system.encode_gallery(["a.png", "b.png"])  # float32 [N, D], L2-normalised\n'
        'scores = system.score_candidates(["a.png", "b.png"], "the larger dog")  # float32 [K]\n```'
    )


def _licence(spec: SystemSpec, recipe: Mapping[str, str] | None) -> str:
    start = (recipe or {}).get("Started from", "a published checkpoint" if spec.is_plain else RANDOM)
    weights = (
        f"These weights began as {start}: its licence holds here too."
        if start != RANDOM
        else "These weights were trained by whoever exported them, who decides on their licence."
    )
    return (
        f"## Licence\n\n{weights} The data they were trained on have terms of their own, which may forbid some uses of "
        "the weights; look them up before you pass this on. The code of contextjax is Apache-2.0."
    )
