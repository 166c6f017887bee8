"""Exports: a trained system as programs that run without it, as StableHLO or ONNX, and the files beside them.

Reading an export imports no Flax, Optax or Orbax, and its ONNX form no JAX.
"""
