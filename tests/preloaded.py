"""Imports for the fork server of `tests.commands` what the commands import late. None of it makes a JAX backend."""

import importlib

for name in (
    "array_record.python.array_record_module", "flax.linen", "grain.python", "jax", "optax", "orbax.checkpoint",
    "spacy", "tensorboardX", "tensorflow_datasets", "contextjax.loading",
    "contextjax.training.loop", "data_pipelines.loader", "experiments.shared.training",
):  # fmt: skip
    importlib.import_module(name)
