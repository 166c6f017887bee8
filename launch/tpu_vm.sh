#!/usr/bin/env bash
# Every host of a TPU VM or pod slice, with the flags of experiments.train; the workdir must be one that all hosts see:
#   TPU=NAME ZONE=ZONE launch/tpu_vm.sh --config=configs/context_cir.py:L14 --config.data.folder=DIR --workdir=gs://BUCKET/run
# It copies the committed code to each host, installs it there, and runs the command: JAX finds the other hosts by itself.
# REMOTE_PYTHON names the hosts' interpreter, 3.11 or newer with venv (default: python3.11).
set -euo pipefail
: "${TPU:?is the name of the TPU VM}" "${ZONE:?is its zone}"

archive="$(mktemp --suffix=.tar.gz)"
trap 'rm -f "$archive"' EXIT
git archive --format=tar.gz --output="$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$TPU":contextjax.tar.gz --zone="$ZONE" --worker=all

setup='mkdir -p contextjax && tar --extract --gzip --file=contextjax.tar.gz --directory=contextjax && cd contextjax'
setup+=" && ${REMOTE_PYTHON:-python3.11} -m venv .venv"
setup+=' && .venv/bin/pip install --quiet --constraint constraints.txt --editable ".[train,storage,tpu]"'
run="$(printf '%q ' .venv/bin/python -m experiments.train "$@")"
gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$setup && exec $run"
