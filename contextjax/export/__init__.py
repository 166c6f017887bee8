"""A trained system as programs that run without it: StableHLO, ONNX, and what lies beside them.

Reading an export imports no Flax, Optax or Orbax, and its ONNX form no JAX.
"""
