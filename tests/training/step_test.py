"""The step on a toy objective: what one update does, and what a bad one leaves alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contextjax.training.step import check, train_step
from contextjax.types import TrainState


@dataclasses.dataclass(frozen=True)
class Line:
    """Squared error of w * x + b, a penalty, and a term that is only logged."""

    weights: tuple = (("error", 1.0), ("penalty", 0.5))

    def represent(self, params, batch, rng):
        return {"prediction": params["w"] * batch["x"] + params["b"], "w": params["w"]}

    def terms(self, r, batch):
        count = jnp.float32(len(batch["x"]))
        return {
            "error": (((r["prediction"] - batch["y"]) ** 2).sum(), count),
            "penalty": (r["w"] ** 2, jnp.float32(1)),
            "nothing": (jnp.float32(0), jnp.float32(0)),
        }


OPTIMIZER = optax.adam(0.1)
GOOD = {"x": jnp.asarray([0.0, 1.0, 2.0, 3.0]), "y": jnp.asarray([1.0, 3.0, 5.0, 7.0])}


def batch(**changes):
    return GOOD | {name: jnp.asarray(value, jnp.float32) for name, value in changes.items()}


def start():
    params = {"w": jnp.float32(0.5), "b": jnp.float32(-0.0)}
    return TrainState.fresh(params, OPTIMIZER.init(params), jax.random.PRNGKey(0))


@pytest.fixture(scope="module")
def step():
    return jax.jit(lambda state, batch: train_step(state, batch, objective=Line(), optimizer=OPTIMIZER))


def bits(tree):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def test_one_step_is_the_optimizers(step):
    state = start()
    loss = lambda p: ((p["w"] * GOOD["x"] + p["b"] - GOOD["y"]) ** 2).mean() + 0.5 * p["w"] ** 2
    value, gradients = jax.value_and_grad(loss)(state.params)
    updates, _ = OPTIMIZER.update(gradients, state.opt_state, state.params)
    expected = optax.apply_updates(state.params, updates)
    after, metrics = step(state, GOOD)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), after.params, expected)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], np.hypot(*gradients.values()), rtol=1e-6)
    np.testing.assert_allclose(metrics["error"], value - 0.125, rtol=1e-6)
    assert metrics["nothing"] == 0  # a term without a count is 0, not NaN
    assert int(after.step) == 1 and bits(after.rng) == bits(state.rng)


@pytest.mark.parametrize(
    "bad", [{"y": [np.nan] * 4}, {"x": [np.inf, 0, 0, 0]}, {"y": [1e30] * 4}, {"x": [0, np.nan, 0, 0], "y": [0] * 4}]
)
def test_a_non_finite_step_leaves_everything_as_it_was(step, bad):
    state, _ = step(start(), GOOD)  # moments that are not zero
    after, metrics = step(state, batch(**bad))
    assert bits((after.params, after.opt_state)) == bits((state.params, state.opt_state))
    assert int(after.health.bad_steps) == int(metrics["bad_steps"]) == 1
    assert int(after.step) == int(state.step) + 1  # the data goes on


def test_bad_steps_are_counted_in_a_row(step):
    state, counts = start(), []
    for name in ("bad", "bad", "good", "bad", "bad", "bad", "good"):
        state, metrics = step(state, GOOD if name == "good" else batch(y=[np.nan] * 4))
        counts.append(int(metrics["bad_steps"]))
    assert counts == [1, 2, 0, 1, 2, 3, 0]


def test_a_bad_step_changes_nothing_of_what_follows(step):
    plain, _ = step(start(), GOOD)
    disturbed, _ = step(start(), batch(x=[np.nan] * 4))
    disturbed, _ = step(disturbed, GOOD)
    assert bits((plain.params, plain.opt_state)) == bits((disturbed.params, disturbed.opt_state))


def norms_of(losses, *, factor, first_step=0):
    """Checks steps with these gradient norms; returns (whether each is good, skipped so far, bad steps in a row)."""
    health, checked = start().health, []
    for step, norm in enumerate(losses):
        good, health = check(
            health, jnp.float32(0), jnp.float32(norm), spike_factor=factor, reset=jnp.bool_(step == first_step)
        )
        checked.append((bool(good), int(health.skipped), int(health.bad_steps)))
    return checked


def test_a_spike_is_far_above_the_mean_of_the_good_steps_before_it():
    rng = np.random.default_rng(0)
    norms = list(np.exp(rng.normal(size=120)))
    norms[10], norms[80], norms[81], norms[100] = 1e4, 60.0, np.nan, 1e9  # the first comes too early to be told
    weights = 0.99 ** np.arange(len(norms))[::-1]
    good = np.ones(len(norms), bool)
    for step, norm in enumerate(norms):
        before = np.flatnonzero(good[:step])
        ema = weights[len(norms) - len(before) :]
        mean = float((ema * np.asarray(norms)[before]).sum() / ema.sum()) if step else 0.0
        good[step] = np.isfinite(norm) and not (ema.sum() > 40 and norm > 5 * mean)
    checked = norms_of(norms, factor=5.0)
    assert [step for step, (is_good, *_) in enumerate(checked) if not is_good] == np.flatnonzero(~good).tolist()
    assert not good[81] and not good[100] and good[10]
    assert checked[-1][1] == (~good).sum() and checked[81][2] == checked[80][2] + 1
    assert all(is_good for step, (is_good, *_) in enumerate(norms_of(norms, factor=0.0)) if step != 81)


def test_the_average_of_norms_is_reset_with_an_objective():
    norms = [1.0] * 60 + [100.0] * 20
    assert not norms_of(norms, factor=10.0)[60][0]
    assert all(is_good for is_good, *_ in norms_of(norms, factor=10.0, first_step=60))


def test_a_spike_leaves_everything_as_it_was():
    def run(spike):
        options = {"objective": Line(), "optimizer": OPTIMIZER, "spike_factor": 20.0}
        step = jax.jit(lambda state, batch: train_step(state, batch, **options))
        state = start()
        for _ in range(60):
            state, _ = step(state, GOOD)
        return (state, *step(state, batch(y=[spike] * 4)))

    before, after, metrics = run(1e4)
    assert bits((after.params, after.opt_state)) == bits((before.params, before.opt_state))
    assert bits(after.health.norms) == bits(before.health.norms) and int(metrics["skipped"]) == 1
    before, after, metrics = run(2.0)
    assert int(metrics["skipped"]) == 0 and bits(after.params) != bits(before.params)


def test_a_finite_loss_with_a_gradient_that_is_not_is_bad():
    @dataclasses.dataclass(frozen=True)
    class Root(Line):
        weights: tuple = (("error", 1.0),)

        def terms(self, r, batch):
            return {"error": (jnp.sqrt(r["w"] - 0.5), jnp.float32(1))}  # sqrt at 0: slope inf

    state = start()
    after, metrics = train_step(state, GOOD, objective=Root(), optimizer=OPTIMIZER)
    assert metrics["loss"] == 0 and int(after.health.bad_steps) == 1
    assert bits(after.params) == bits(state.params)


def test_the_system_trains(tiny):
    """A few steps of the real objective on one batch bring its loss down."""
    from contextjax.objectives.context_cir import ContextCIRObjective

    model = tiny.model()
    params = tiny.params(model)
    objective = ContextCIRObjective(model, (("contrastive", 1.0),))
    optimizer = optax.adam(3e-3)
    data = tiny.batch(4, 1)
    run = jax.jit(lambda state: train_step(state, data, objective=objective, optimizer=optimizer))
    state = TrainState.fresh(params, optimizer.init(params), jax.random.PRNGKey(0))
    losses = []
    for _ in range(12):
        state, metrics = run(state)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.8 * losses[0] and int(metrics["bad_steps"]) == 0
