"""Tables and curves of the rows that `compare` writes: means over seeds, differences between variants, intervals."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.files import write_whole
from contextjax.reports.charts import line_chart
from contextjax.reports.report import ComparisonReport, render
from contextjax.types import UserError

# Of the table, where the metrics have them; of further splits and of the rest, ENDINGS.
COLUMNS = ("mAP@10", "R@1", "R@5", "R@10", "Rs@1", "Rs@2", "Avg", "accuracy", "accuracy/absolute",
           "accuracy/comparative", "grounding/pointing", "grounding/mass", "grounding/alone_pointing")  # fmt: skip
ENDINGS = ("R@1", "Rs@1", "mAP@10", "accuracy")
TRIPLETS = re.compile(r"triplets(\d+)")  # in the name of a variant: how many it was trained on
LEVEL = 0.95

Row = dict[str, Any]


def table(rows: Sequence[Row]) -> str:
    """Returns a Markdown table: mean and standard deviation over the seeds; "-" where there is no such metric."""
    header, lines = _cells(rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, *lines)).replace(
        "|\n", f"|\n|{'---|' * len(header)}\n", 1
    )


def differences(rows: Sequence[Row], against: str) -> str:
    """Returns a Markdown table: the mean difference of each variant to one, seed by seed, and its 95 % interval.

    Raises:
      UserError: there is no row of that variant.
    """
    base = {row["seed"]: row["metrics"] for row in rows if row["variant"] == against}
    if not base:
        known = ", ".join(dict.fromkeys(row["variant"] for row in rows)) or "none"
        raise UserError(f"There is no row of the variant '{against}'; the rows are of {known}.")
    columns = _columns(rows)
    lines = [f"| minus {against} | seeds | {' | '.join(columns)} |", f"|{'---|' * (2 + len(columns))}"]
    for variant in dict.fromkeys(row["variant"] for row in rows if row["variant"] != against):
        pairs = [(row["metrics"], base[row["seed"]]) for row in rows
                 if row["variant"] == variant and row["seed"] in base]  # fmt: skip
        cells = []
        for name in columns:
            values = [own[name] - other[name] for own, other in pairs if name in own and name in other]
            low, high = interval(values)
            shown = f"{np.mean(values):+.1f}" if values else "-"
            cells.append(shown + (f" ({low:.1f} to {high:.1f})" if np.isfinite(low) else ""))
        lines.append(f"| {variant} | {len(pairs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def phrase_tables(rows: Sequence[Row]) -> str:
    """Returns a Markdown table of R@1 and Rs@1 by the number of noun phrases, means over seeds; "" without any."""
    metrics_of: dict[tuple[str, str], dict[str, list[dict[str, float]]]] = {}
    for row in rows:
        for split, own in {row.get("split", ""): row, **row.get("splits", {})}.items():
            for number, metrics in own.get("by_phrases", {}).items():
                metrics_of.setdefault((row["variant"], split), {}).setdefault(number, []).append(metrics)
    if not metrics_of:
        return ""
    numbers = sorted({number for own in metrics_of.values() for number in own}, key=int)
    lines = [f"| R@1 / Rs@1 by noun phrases | split | {' | '.join(numbers)} |", f"|{'---|' * (2 + len(numbers))}"]
    mean = lambda each, name: f"{np.mean([m[name] for m in each]):.1f}" if all(name in m for m in each) else "-"
    for (variant, split), own in sorted(metrics_of.items(), key=lambda item: item[0][1]):
        cells = [f"{mean(own[n], 'R@1')} / {mean(own[n], 'Rs@1')}" if n in own else "-" for n in numbers]
        lines.append(f"| {variant} | {split} | {' | '.join(cells)} |")
    return "\n".join(lines)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % interval of a mean by Student's t; (nan, nan) of fewer than two values."""
    from scipy.special import stdtrit

    if len(values) < 2:
        return np.nan, np.nan
    half = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2)) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def write_page(path: Path, rows: Sequence[Row], *, title: str) -> None:
    """Writes a page with the table of all variants, and curves over the number of triplets where variants name it.

    Raises:
      UserError: there are no rows.
    """
    if not rows:
        raise UserError("There is no finished run to make a page of; give --variants and --seeds to train.")
    columns, lines = _cells(rows)
    charts = (_curves(rows, name) for name in ("R@1", "Rs@1", "multi/R@1", "multi/Rs@1", "grounding/pointing"))
    report = ComparisonReport(
        title=title,
        lead="Mean over seeds; the intervals in the charts are those of 95 % of the mean, by Student's t.",
        charts=tuple(chart for chart in charts if chart),
        columns=tuple(columns),
        rows=tuple(map(tuple, lines)),
        facts={"Rows": f"{len(rows)} runs, {min(r['date'] for r in rows)} to {max(r['date'] for r in rows)}"
               if all("date" in row for row in rows) else f"{len(rows)} runs",
               "Date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"},
    )  # fmt: skip
    write_whole(path, render(report))


def _curves(rows: Sequence[Row], name: str) -> Any:
    """Returns a chart of a metric against the number of triplets, a line for all else that variants are called."""
    values: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if (count := TRIPLETS.search(row["variant"])) and name in row["metrics"]:
            rest = ",".join(part for part in row["variant"].split(",") if part != count[0]) or "recipe"
            values.setdefault(rest, {}).setdefault(int(count[1]), []).append(row["metrics"][name])
    drawn = sorted(values, key=lambda rest: -len(values[rest]))  # a chart has few lines: those of most sizes
    curves = {rest: [(n, float(np.mean(values[rest][n]))) for n in sorted(values[rest])] for rest in drawn}
    bars = {rest: [(n, *interval(own[n])) for n in sorted(own) if len(own[n]) > 1] for rest, own in values.items()}
    return line_chart(name, curves, y_label="percent", x_label="triplets", intervals=bars)


def _columns(rows: Sequence[Row]) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row["metrics"])
    return [name for name in names if name in COLUMNS or name.partition("/")[2] in ENDINGS]


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the lines of the table."""
    columns, lines = _columns(rows), []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        seconds = f"{min(r['seconds'] for r in own):.0f}–{max(r['seconds'] for r in own):.0f}"
        cells = [variant, str(len(own)), str(own[0]["steps"]), seconds]
        for name in columns:
            values = np.asarray([row["metrics"][name] for row in own if name in row["metrics"]])
            spread = f"{values.mean():.1f} ± {values.std(ddof=min(1, len(values) - 1)):.1f}" if len(values) else "-"
            cells.append(spread)
        lines.append(cells)
    return ["variant", "seeds", "steps", "seconds", *columns], lines
