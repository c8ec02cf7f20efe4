"""Linear CKA: what it is of features whose similarity is known, and that batches change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from passband.probes.cka import Estimator, centered, cka, gram, hsic, leanings, shares


def values(*features: Tensor, estimator: Estimator = "unbiased") -> np.ndarray:
    """CKA of all pairs on one batch."""
    grams = torch.stack([centered(gram(one), estimator) for one in features])
    cross = hsic(grams, grams).numpy()
    return cka(cross, np.diag(cross), np.diag(cross))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def direct(k: np.ndarray, other: np.ndarray) -> float:
    """Unbiased HSIC as Song et al. write it."""
    n = len(k)
    k, other = k - np.diag(np.diag(k)), other - np.diag(np.diag(other))
    ones = np.ones(n)
    total = np.trace(k @ other) + ones @ k @ ones * (ones @ other @ ones) / ((n - 1) * (n - 2))
    return float(total - 2 / (n - 2) * (ones @ k @ other @ ones)) / (n * (n - 3))


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
def test_rotated_scaled_and_shifted_features_are_the_same(estimator: Estimator) -> None:
    features = drawn(40, 12)
    rotation = torch.linalg.qr(drawn(12, 12, seed=1)).Q
    found = values(features, 3.0 * features @ rotation + 7.0, estimator=estimator)
    assert found == pytest.approx(np.ones((2, 2)), abs=1e-6)


def test_the_biased_one_is_the_closed_form_of_centered_features() -> None:
    first, second = drawn(70, 30), drawn(70, 9, seed=1)
    second[:, :5] += first[:, :5]
    x, y = ((one - one.mean(0)).double().numpy() for one in (first, second))
    norm = np.linalg.norm
    expected = norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y))
    assert 0.2 < expected < 0.9
    assert values(first, second, estimator="biased")[0, 1] == pytest.approx(expected, rel=1e-6)


def test_the_unbiased_one_is_the_formula_written_out() -> None:
    features = [drawn(9, 5), drawn(9, 3, 2, 2, seed=1), drawn(9, 4, seed=2) + 5]
    plain = [one.flatten(1).double().numpy() for one in features]
    grams = torch.stack([centered(gram(one), "unbiased") for one in features])
    expected = [[direct(a @ a.T, b @ b.T) for b in plain] for a in plain]
    assert hsic(grams, grams).numpy() == pytest.approx(np.array(expected), rel=1e-5, abs=1e-6)
    assert hsic(grams, grams).numpy() == pytest.approx(shares(grams, grams).sum(-1).numpy())


def test_independent_features_are_unlike_where_the_biased_estimate_says_otherwise() -> None:
    cross, first, second = np.zeros((1, 1)), np.zeros(1), np.zeros(1)
    for batch in range(20):
        one, other = (centered(gram(drawn(30, 50, seed=2 * batch + k)), "unbiased")[None] for k in range(2))
        cross, first, second = (
            cross + hsic(one, other).numpy(),
            first + hsic(one, one)[0].numpy(),
            second + hsic(other, other)[0].numpy(),
        )
    assert abs(cka(cross, first, second)[0, 0]) < 0.05
    assert values(drawn(30, 50), drawn(30, 50, seed=1), estimator="biased")[0, 1] > 0.5


@pytest.mark.parametrize("count", [4, 64, 65, 130])
def test_a_gram_matrix_is_the_same_in_any_layout_and_any_number_of_strips(count: int) -> None:
    features = drawn(count, 6, 30, 30)
    plain = (features - features[:1]).flatten(1).double()
    expected = (plain @ plain.T).numpy()
    for one in (features, features.contiguous(memory_format=torch.channels_last), features.double()):
        assert np.allclose(gram(one).numpy(), expected, rtol=1e-5, atol=1e-2)


def test_large_means_cost_no_digits_and_constant_features_have_no_similarity() -> None:
    features = drawn(30, 8)
    shifted = values(features, features + 1e4)
    assert shifted[0, 1] == pytest.approx(1, abs=1e-5)
    found = values(features, torch.full((30, 8), 0.1), (torch.arange(30)[:, None] * 1e-9 + torch.ones(30, 8)))
    assert found[0, 0] == pytest.approx(1) and np.isnan(found[0, 1:]).all() and np.isnan(found[1:]).all()


def test_leanings_are_what_an_image_left_out_changes() -> None:
    first, second = drawn(200, 6), drawn(200, 6, seed=1)
    second[:, :3] += first[:, :3]
    grams = [centered(gram(one), "unbiased")[None] for one in (first, second)]
    lean = leanings(shares(*grams))[0, 0]
    whole = hsic(*grams).item()
    kept = [torch.arange(200) != place for place in range(20)]
    left = [hsic(*(centered(gram(one[mask]), "unbiased")[None] for one in (first, second))).item() for mask in kept]
    assert lean.sum().item() == pytest.approx(0, abs=1e-9)
    changes = whole - np.array(left)
    assert np.abs(changes).max() > 5 * np.abs(changes - lean[:20].numpy()).max()
