#!/usr/bin/env bash
# One machine with GPUs, a process for each. From the repository's root, with the flags of experiments.train:
#   launch/gpu_box.sh --config=configs/context_cir.py:B16 --config.data.folder=CIRR --workdir=DIR
# GPUS=4 takes fewer; CUDA_VISIBLE_DEVICES chooses which.
set -euo pipefail
gpus="${GPUS:-$(nvidia-smi --list-gpus | wc -l)}"
exec "${PYTHON:-.venv/bin/python}" -m experiments.launch --processes="$gpus" --gpus -- experiments.train "$@"
