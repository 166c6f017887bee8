#!/bin/bash
#SBATCH --job-name=contextjax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# From the repository's root, with the flags of experiments.train:
#   sbatch launch/slurm.sh --config=configs/context_cir.py:L14 --config.data.folder=CIRR --workdir=DIR
# A process a GPU: JAX reads Slurm's variables and takes the GPU of SLURM_LOCALID, so that every task must see all GPUs of
# its node (no --gpus-per-task, no --gpu-bind).
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
# When one task fails, the others are ended. --requeue runs the same command again after a preemption or the loss of a
# node; it resumes. Two minutes before the time limit the tasks are asked to end (--signal), and training saves. srun does
# not take --cpus-per-task over by itself.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-8}"
exec srun --kill-on-bad-exit=1 --label "${PYTHON:-.venv/bin/python}" -m experiments.train "$@"
