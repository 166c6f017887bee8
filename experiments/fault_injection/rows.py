"""What a drill has found, and a table of several."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Row:
    """One drill."""

    drill: str
    times: int  # how often it was tried
    lost: int = 0  # acknowledged checkpoints that the next start would not have gone on from
    corrupt: int = 0  # damaged files that were taken for sound ones, and finished runs that are not the whole one
    problems: Sequence[str] = ()  # whatever else was not as it should be
    note: str = ""  # what was measured

    @property
    def passed(self) -> bool:
        """Nothing was found."""
        return not (self.lost or self.corrupt or self.problems)


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, and a line for each problem."""
    lines = ["| drill | times | lost | corrupt | result |", "|---|---|---|---|---|"]
    for row in rows:
        result = ", ".join(filter(None, ["pass" if row.passed else "FAIL", row.note]))
        lines.append(f"| {row.drill} | {row.times} | {row.lost} | {row.corrupt} | {result} |")
    problems = [f"{row.drill}: {problem}" for row in rows for problem in row.problems]
    return "\n".join(lines + ([""] if problems else []) + problems)
