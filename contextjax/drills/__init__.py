"""Kill, cut, fill, flip, resume: the proofs that a run loses nothing. What runs the training is handed to them."""

from contextjax.drills.accounts import accounts
from contextjax.drills.damage import damage
from contextjax.drills.faults import full_disk, io_errors
from contextjax.drills.interruptions import interrupt, killed, terminated
from contextjax.drills.resume import Cut, cut_after, resume
from contextjax.drills.rows import Row, table
from contextjax.drills.soak import soak
from contextjax.drills.steps import hanging, poisoned, sick_steps, stalls

__all__ = [
    "Cut", "Row", "accounts", "cut_after", "damage", "full_disk", "hanging", "interrupt", "io_errors", "killed",
    "poisoned", "resume", "sick_steps", "soak", "stalls", "table", "terminated",
]  # fmt: skip
