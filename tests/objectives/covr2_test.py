"""CoVR-2's objective: HN-NCE of means against a plain form; what is frozen gets no gradient; several modifications."""

import jax
import numpy as np
import pytest

from contextjax import programs
from contextjax.objectives.covr2 import CoVR2Objective
from contextjax.optim import stop_gradients
from tests.losses.hard_negative_test import TAU, written_out
from tests.models.blip2_test import random_params
from tests.models.covr2_test import MODEL


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


def means(terms):
    return {name: float(total / count) for name, (total, count) in terms.items()}


@pytest.mark.long
def test_terms_are_hn_nce_of_the_means_of_the_vectors(params, tiny):
    batch = tiny.batch(4, 1)
    objective = CoVR2Objective(MODEL, (("captions", 0.5), ("hard_negative", 0.5)), temperature=TAU)
    got = means(jax.jit(lambda p: objective.terms(objective.represent(p, batch), batch))(params))
    flat = lambda x: np.asarray(x).reshape(-1, *x.shape[2:])
    ids, mask = map(flat, batch.texts)
    query = programs.embed_query_tokens(MODEL, params, batch.references, ids, mask)
    target = programs.embed_gallery_tokens(MODEL, params, flat(batch.targets))
    caption = programs.embed_text(MODEL, params, *(np.asarray(x)[:, 1] for x in batch.captions))
    mean = lambda x: np.asarray(x, np.float64).mean(1)
    assert got["hard_negative"] == pytest.approx(written_out(mean(query), mean(target)) / 4, rel=1e-5)
    expected = written_out(mean(query), np.asarray(caption, np.float64)) / 4
    assert got["captions"] == pytest.approx(expected, rel=1e-5)
    assert 0 <= got["batch_recall"] <= 1


@pytest.mark.long
def test_modifications_share_their_reference_and_those_that_are_missing_count_for_nothing(params, tiny):
    batch = tiny.batch(3, 2)
    objective = CoVR2Objective(MODEL, (("hard_negative", 1.0),), temperature=TAU)
    r = jax.jit(lambda p: objective.represent(p, batch))(params)
    ids, mask = (np.asarray(x).reshape(6, -1) for x in batch.texts)
    pictures = np.repeat(np.asarray(batch.references), 2, axis=0)
    query = programs.embed_query(MODEL, params, pictures, ids, mask, mode="token_mean")
    np.testing.assert_allclose(r["query"], query, atol=1e-5)
    total, count = objective.terms(r, batch)["hard_negative"]
    assert count == 5
    np.testing.assert_allclose(
        total, written_out(*(np.asarray(r[n], np.float64)[:5] for n in ("query", "target"))), rtol=1e-5
    )


@pytest.mark.long
def test_every_trained_parameter_learns_and_no_frozen_one(params, tiny):
    batch = tiny.batch(4, 1)
    objective = CoVR2Objective(MODEL, (("hard_negative", 1.0),))

    def loss(params):
        params = stop_gradients(params, ("blip2",))
        return objective.terms(objective.represent(params, batch), batch)["hard_negative"][0]

    gradients = jax.jit(jax.grad(loss))(params)
    from contextjax.pretrained.names import flatten

    moved = {path for path, x in flatten(gradients).items() if np.abs(x).max() > 0}
    last = f"qformer/layer_{MODEL.config.blip2.text.layers - 1}/mlp"  # of text positions, which nothing reads any more
    held = {path for path in flatten(gradients) if path.startswith(("blip2/", last))}
    assert moved == set(flatten(gradients)) - held
