"""The outcome of a case, and a table of several."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The counts and problems of one case."""

    case: str
    times: int  # how often the fault was injected
    lost: int = 0  # checkpoints that had been reported safe, and that the next start would not have taken
    corrupt: int = 0  # damaged files that were taken for sound ones, and finished runs that are not the whole one
    problems: Sequence[str] = ()  # whatever else was not as it should be
    note: str = ""  # what was measured

    @property
    def passed(self) -> bool:
        """Returns whether the case has no problem."""
        return not (self.lost or self.corrupt or self.problems)


def table(outcomes: Sequence[Outcome]) -> str:
    """Returns the outcomes as a Markdown table, and a line for each problem."""
    lines = ["| case | times | lost | corrupt | result |", "|---|---|---|---|---|"]
    for each in outcomes:
        result = ", ".join(filter(None, ["pass" if each.passed else "FAIL", each.note]))
        lines.append(f"| {each.case} | {each.times} | {each.lost} | {each.corrupt} | {result} |")
    problems = [f"{each.case}: {problem}" for each in outcomes for problem in each.problems]
    return "\n".join(lines + ([""] if problems else []) + problems)
