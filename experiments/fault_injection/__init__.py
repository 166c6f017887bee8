"""Fault injection: kills, SIGTERM, full disks, I/O errors, damaged files and more; checks that a run loses nothing.

cases.py lists the cases and runs them; each of the other modules holds one kind of fault and the check that belongs to
it. What trains runs in processes of its own (processes.py, children.py).
"""
