"""model.dtype=bfloat16: every matmul of the towers is in it; statistics, softmaxes and what is compared are not."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from contextjax.objectives.context_blip import CaptionObjective, SelectionObjective
from contextjax.objectives.context_cir import ContextCIRObjective
from contextjax.pretrained import abstract_params
from contextjax.training.step import loss_of
from tests.models.context_blip_test import candidate_batch, caption_batch, small_model

SENSITIVE = ("exp", "log", "rsqrt", "sqrt", "reduce_max", "argmax")  # of softmaxes, norms, losses and draws


def composed(tiny, dtype):
    model = tiny.model(dtype=dtype, fusion_self_attention=True)
    weights = (("captions", 0.5), ("consistency", 0.1), ("contrastive", 1.0))
    return ContextCIRObjective(model, weights), tiny.batch(2, 2)


def captions(tiny, dtype):
    model = small_model(selection="none", context_layers=0).clone(dtype=dtype)
    return CaptionObjective(model, (("contrastive", 0.5), ("masking", 1.0), ("matching", 1.0))), caption_batch(tiny, 3)


def candidates(tiny, dtype):
    model = small_model(masking="none", selection="both").clone(dtype=dtype)
    return SelectionObjective(model, (("contrastive", 0.5), ("selection", 1.0))), candidate_batch(tiny, 2, 3)


def equations(jaxpr, within=""):
    """(operation, types of its operands, where in the model it is), of a program and of the programs within."""
    for equation in jaxpr.eqns:
        types = {str(x.aval.dtype) for x in equation.invars if jnp.issubdtype(x.aval.dtype, jnp.floating)}
        where = f"{within}/{equation.source_info.name_stack}"
        yield equation.primitive.name, types, where
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner, where)


@pytest.mark.parametrize("case", [composed, captions, candidates])
def test_matmuls_are_in_bfloat16_and_what_is_sensitive_is_not(tiny, case):
    objective, batch = case(tiny, jnp.bfloat16)
    key = jax.random.key(0)
    traced = lambda params: objective.terms(objective.represent(params, batch, key), batch)
    program = jax.make_jaxpr(traced)(nn.unbox(abstract_params(objective.model)))
    got = list(equations(program.jaxpr))
    matmuls = [(types, where) for name, types, where in got if name == "dot_general" and types]
    layers = {where for types, where in matmuls if "layer_0" in where or "fusion" in where}
    assert len(layers) > 10
    assert all(types == {"bfloat16"} for types, where in matmuls if where in layers)
    # Projections and heads, similarities, the consistency's maps: what is compared.
    assert all(types == {"float32"} for types, where in matmuls if "projection" in where or "head" in where)
    assert not [(name, where) for name, types, where in got if name in SENSITIVE and "bfloat16" in types]


SUMS = ("dot_general", "reduce_sum", "scatter-add", "conv_general_dilated", "add_any")


def rounded_sums(jaxpr, shapes):
    """Sums in bfloat16 of a parameter's shape that are cast to float32, as gradients are, with where they are."""
    made_by = {}
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            made_by[variable] = equation
    for equation in jaxpr.eqns:
        if equation.primitive.name == "convert_element_type" and equation.outvars[0].aval.dtype == jnp.float32:
            (x,) = equation.invars
            maker = made_by.get(x) if not hasattr(x, "val") else None
            if maker and maker.primitive.name in SUMS and x.aval.dtype == jnp.bfloat16 and x.aval.shape in shapes:
                yield x.aval.shape, maker.primitive.name, str(maker.source_info.name_stack)
        for inner in jaxprs_in_params(equation.params):
            yield from rounded_sums(inner, shapes)


@pytest.mark.long
@pytest.mark.parametrize("case", [composed, captions, candidates])
def test_gradients_are_summed_in_float32(tiny, case):
    """A sum over rows is one over devices: in bfloat16 each device's share and each partial sum would be rounded."""
    objective, batch = case(tiny, jnp.bfloat16)
    params, key = nn.unbox(abstract_params(objective.model)), jax.random.key(0)
    loss = lambda params: loss_of(objective, objective.represent(params, batch, key), batch)[0]
    shapes = {x.shape for x in jax.tree.leaves(params) if x.shape}
    assert not list(rounded_sums(jax.make_jaxpr(jax.grad(loss))(params).jaxpr, shapes))
