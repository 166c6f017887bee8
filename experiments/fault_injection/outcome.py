"""The outcome of a case, and a table of several."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a case found.

    Attributes:
      case: Its name.
      times: How often the fault was injected.
      lost: Checkpoints that had been reported safe, and that the next start would not have taken.
      corrupt: Damaged files that were taken for sound ones, and finished runs that differ from the uninterrupted one.
      problems: Whatever else was not as it should be, a sentence each.
      note: What was measured.
    """

    case: str
    times: int
    lost: int = 0
    corrupt: int = 0
    problems: Sequence[str] = ()
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not (self.lost or self.corrupt or self.problems)


def table(outcomes: Sequence[Outcome]) -> str:
    """Returns the outcomes as a Markdown table, and a line for each problem."""
    lines = ["| case | times | lost | corrupt | result |", "|---|---|---|---|---|"]
    for each in outcomes:
        result = ", ".join(filter(None, ["pass" if each.passed else "FAIL", each.note]))
        lines.append(f"| {each.case} | {each.times} | {each.lost} | {each.corrupt} | {result} |")
    problems = [f"{each.case}: {problem}" for each in outcomes for problem in each.problems]
    return "\n".join(lines + ([""] if problems else []) + problems)
