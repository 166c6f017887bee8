"""The counter of compilations: those of an expected block do not count."""

import jax
import jax.numpy as jnp

from contextjax.training.compile_counter import CompileCounter


def test_only_unexpected_compilations_count():
    x = jnp.arange(7.0)
    counter = CompileCounter()
    with counter.expected():
        jax.jit(lambda x: jnp.sin(x) * 3)(x)
    assert counter.unexpected == 0
    program = jax.jit(lambda x: jnp.cos(x) * 5)
    program(x)
    assert counter.unexpected >= 1
    before = counter.unexpected
    program(x)  # is compiled already
    assert counter.unexpected == before
