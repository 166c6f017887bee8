"""An epoch of stage 2b from cached features and one that encodes the pictures again, both scaled from a few steps."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from configs.context_blip import DESCRIPTIONS
from contextjax.types import UserError
from experiments.comparisons import measure
from experiments.comparisons.cached_jax import CANDIDATES, Stage2b

CACHED, AGAIN, MAKING = "cached features", "pictures encoded again", "making the cache"
TOLERANCE = 1e-4  # of the losses, relative
TARGET, EPOCHS = 100, 20


def compare(
    *, size: str, batch: int, sets: int, steps: int, pairs: int, descriptions: int = DESCRIPTIONS
) -> dict[str, Any]:
    """{"epochs": what -> seconds of an epoch in each round, costs; "ratio"; "losses"}.

    Args:
      size: a name of stage1_case.SIZES.
      batch: descriptions in a step on cached features.
      sets: descriptions in a step on pictures, and in a pass that makes features.
      steps: on cached features, in a timing.
      pairs: rounds.
      descriptions: of an epoch, and in the table of features.

    Raises:
      UserError: the losses of both differ, or there are fewer descriptions than `steps` batches have.
    """
    if descriptions < batch * steps:
        raise UserError(f"{steps} steps of {batch} are more than the {descriptions} descriptions; give fewer --steps.")
    stage = Stage2b(size)
    pictures = stage.pictures(sets)
    encode = stage.encode(pictures)
    losses = stage.loss(encode()), stage.loss(pictures)
    if not abs(losses[0] - losses[1]) <= TOLERANCE * abs(losses[1]):
        raise UserError(
            f"The loss is {losses[0]:.7g} from features and {losses[1]:.7g} from pictures; expected {TOLERANCE:g} of "
            "it apart at most: the two don't compute the same, so their times can't be compared."
        )
    samples = stage.features(descriptions)
    collate = lambda number: samples.collate([samples[row] for row in range(number * batch, (number + 1) * batch)])
    programs = {
        CACHED: stage.steps(CACHED, collate(0), lambda: (collate(number) for number in range(steps))),
        AGAIN: stage.steps(AGAIN, pictures, lambda: [pictures]),
        MAKING: encode,
    }
    counts = {CACHED: batch * steps, AGAIN: sets, MAKING: sets}
    seconds = dict(zip(programs, measure.rounds(list(programs.values()), pairs, seconds=0.0), strict=True))
    epochs = {name: [descriptions / counts[name] * t for t in times] for name, times in seconds.items()}
    return {
        "losses": losses,
        "epochs": {
            name: {"seconds": times, "timed_descriptions": counts[name], **stage.costs.get(name, {})}
            for name, times in epochs.items()
        },
        "ratio": _ratio(epochs[AGAIN], epochs[CACHED]) | {"target": TARGET},
        f"ratio_of_{EPOCHS}_epochs_and_the_cache": _ratio(
            [EPOCHS * a for a in epochs[AGAIN]],
            [EPOCHS * a + b for a, b in zip(epochs[CACHED], epochs[MAKING], strict=True)],
        ),
    }


def notes(*, batch: int, sets: int, steps: int, descriptions: int = DESCRIPTIONS) -> dict[str, str]:
    """What the figures are."""
    return {
        "scaled": f"an epoch is {descriptions} descriptions; timed are {steps} steps of {batch} on features, one of "
        f"{sets} on pictures and a pass over {sets} that makes features; all scaled by the number of descriptions",
        "data": f"random; pictures lie decoded in memory, every description encodes its {CANDIDATES} (published form)",
        "trained": "the inter-context encoder; everything else is frozen (configs/context_blip.py:2b)",
    }


def _ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def table(found: Mapping[str, Any]) -> str:
    """Markdown: a line for each epoch, then the ratios."""
    lines = ["| epoch, scaled | seconds (min to max) | TFLOP a step | temporaries of a step, GB |", "|---|---|---|---|"]
    for name, epoch in found["epochs"].items():
        seconds = epoch["seconds"]
        spread = f"{statistics.median(seconds):,.1f} ({min(seconds):,.1f} to {max(seconds):,.1f})"
        costs = f"{epoch['flops'] / 1e12:.3f} | {epoch['bytes'] / 1e9:.2f}" if "flops" in epoch else "|"
        lines.append(f"| {name} | {spread} | {costs} |")
    told = lambda r: f"{r['median']:.0f}x ({r['min']:.0f} to {r['max']:.0f})"
    whole = found[f"ratio_of_{EPOCHS}_epochs_and_the_cache"]
    return "\n".join([
        *lines,
        "",
        f"{AGAIN} / {CACHED}, an epoch: {told(found['ratio'])}; the target is {TARGET}x.",
        f"{EPOCHS} epochs, the cache made once: {told(whole)}.",
        f"Losses of the same sets: {found['losses'][0]:.6g} from features, {found['losses'][1]:.6g} from pictures.",
    ])  # fmt: skip
