"""The model card of an export: README.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TITLES = {"ContextCIR": "ConText-CIR"}


def make_card(manifest: Mapping[str, Any], config: Mapping[str, Any] | None, evaluation: Mapping[str, Any] | None,
              parity: Mapping[str, Any] | None) -> str:  # fmt: skip
    """Markdown.

    Args:
      manifest: what export.json says.
      config: the run's whole config; None for a CLIP or BLIP.
      evaluation: the run's evaluation.json, where it is of this checkpoint.
      parity: the certificate, where there are programs.
    """
    name = TITLES.get(manifest["class"], manifest["class"])
    parts = [
        f"---\nlibrary_name: contextjax\npipeline_tag: feature-extraction\n---\n# {name}",
        f"Written by contextjax from {_origin(manifest)}, in {manifest['dtype']}.",
        _recipe(config), _metrics(evaluation), _parity(parity), _pictures(manifest), _usage(manifest), _licence(config),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _origin(manifest: Mapping[str, Any]) -> str:
    run = manifest["run"]
    return f"step {run['step']} of the training run with config {run['config_hash']}" if run["config_hash"] else (
        "published weights"
    )  # fmt: skip


def _recipe(config: Mapping[str, Any] | None) -> str:
    if not config or "training" not in config:
        return ""
    model, data, optimizer = config["model"], config["data"], config["optimizer"]
    vision, text = model["vision"], model["text"]
    sources = ", ".join(data.get("sources") or {}) or data["reader"]
    start = model.get("pretrained") or ("an earlier run" if model.get("start") else "random weights")
    losses = ", ".join(f"{name} {weight:g}" for name, weight in config["loss"]["weights"].items() if weight)
    rows = {
        "Towers": f"vision {vision['layers']} x {vision['width']}, patches of {vision['patch_size']}; text "
                  f"{text['layers']} x {text['width']}; projection {model['projection']}",
        "Started from": start,
        "Trained on": f"{sources}, split {data['train_split']}, {data['batch_size']} a batch",
        "Steps": f"{config['training']['steps']} ({optimizer['name']}, learning rate {optimizer['learning_rate']:g}, "
                 f"{optimizer['schedule']})",
        "Losses": losses,
        "Computed in": model["dtype"],
    }  # fmt: skip
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"## Recipe\n\n| | |\n|---|---|\n{table}\n\n`config.json` holds all of it."


def _metrics(evaluation: Mapping[str, Any] | None) -> str:
    if not evaluation:
        return "## Metrics\n\nNo evaluation of this checkpoint lay beside it (`experiments.evaluate` makes one)."
    metrics = {name: value for name, value in evaluation["metrics"].items() if value is not None}
    rows = "\n".join(f"| {name} | {value:.1f} |" for name, value in metrics.items())
    return (
        f"## Metrics\n\nProtocol {evaluation['protocol']}, split {evaluation['split']}: {evaluation['n_queries']} "
        f"queries, {evaluation['n_gallery']} pictures, by '{evaluation['query']}'. They are the live model's; the "
        f"certificate says how far this export is from it.\n\n| | |\n|---|---|\n{rows}"
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


def _pictures(manifest: Mapping[str, Any]) -> str:
    facts, text = manifest["preprocessing"], manifest["tokenizer"]
    how = {"crop": "the short side resized (bicubic, antialiased), the centre cut out",
           "squash": "both sides resized (bicubic, antialiased)"}[facts["fit"]]  # fmt: skip
    return (
        f"## Inputs\n\nPictures: uint8 [{facts['image_size']}, {facts['image_size']}, 3], RGB, {how}; scaling, mean "
        f"and std are in the programs. Texts: `tokenizer.json`, at most {text['length']} tokens, {text['specials'][0]} "
        f"first and {text['specials'][1]} last; ids int32, mask true where a token is real."
    )


def _usage(manifest: Mapping[str, Any]) -> str:
    return (
        "## Use\n\n```python\nimport contextjax\n\nsystem = contextjax.load(FOLDER)\n"
        'queries = system.encode_query(["q.png"], ["make the dog small"])  # float32 [B, D], L2-normalised\n'
        'gallery = system.encode_gallery(["a.png", "b.png"])  # float32 [N, D], L2-normalised\n'
        'scores = system.score_candidates(["a.png", "b.png"], "the larger dog")  # float32 [K]\n```'
    )


def _licence(config: Mapping[str, Any] | None) -> str:
    model = config["model"] if config else {"pretrained": "a published checkpoint"}
    pretrained = model.get("pretrained") or ("an earlier run" if model.get("start") else "")
    weights = (
        f"These weights began as {pretrained}: its licence holds here too."
        if pretrained
        else "These weights were trained by whoever exported them, who decides on their licence."
    )
    return (
        f"## Licence\n\n{weights} The data they were trained on have terms of their own, which may forbid some uses of "
        "the weights; look them up before you pass this on. The code of contextjax is Apache-2.0."
    )
