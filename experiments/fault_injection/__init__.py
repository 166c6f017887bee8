"""Kill, cut, fill, flip, resume: the proofs that a run loses nothing. What runs the training is handed to them."""

from experiments.fault_injection.accounts import accounts
from experiments.fault_injection.damage import damage
from experiments.fault_injection.faults import full_disk, io_errors
from experiments.fault_injection.interruptions import interrupt, killed, terminated
from experiments.fault_injection.resume import Cut, cut_after, resume
from experiments.fault_injection.rows import Row, table
from experiments.fault_injection.soak import soak
from experiments.fault_injection.steps import hanging, poisoned, sick_steps, stalls

__all__ = [
    "Cut", "Row", "accounts", "cut_after", "damage", "full_disk", "hanging", "interrupt", "io_errors", "killed",
    "poisoned", "resume", "sick_steps", "soak", "stalls", "table", "terminated",
]  # fmt: skip
