"""Checkpoints of a run: writer.py saves and resumes, reader.py reads, integrity.py keeps the checksums of their files.

A checkpoint holds the whole TrainState (step, parameters, optimizer state, RNG, health) and a `meta` JSON: the step
(which is the data position), the hashes of config and data, the versions it was written with, and a score where it was
evaluated by a rule of what is best. It is written in the background and becomes visible only when it is whole: by a
rename on a disk, by a marker (commit_success.txt) that is written last in an object store, which has no renames. Its
checksums.json follows. Only that file marks the step as safe: a checkpoint without it is never restored.

Restore order of a run:
  1. config.json must be the config of this run, wherever that is computed.
  2. The newest whole checkpoint whose files agree with their checksums gives the state; damaged newer ones are set
     aside.
  3. Its hashes of config and data must agree with this run's.
  4. Metrics lines past its step are cut.
  5. The loader starts at its step.
"""
