"""What noise hides: the accounting against published and other bounds, and what is told."""

from math import inf, log, sqrt

import numpy as np
import pytest
import torch

from windfall.lowcomm.accounting import delta_of, epsilon_of, mu_squared
from windfall.lowcomm.layout import Split
from windfall.lowcomm.privatise import privatised


def by_moments(total: float, delta: float) -> float:
    """Rényi's moments of a Gaussian mechanism, turned into epsilon (Mironov, arXiv 1702.07476, proposition 3)."""
    orders = [1 + each / 100 for each in range(1, 20_000)]
    return min(order * total / 2 + log(1 / delta) / (order - 1) for order in orders)


@pytest.mark.parametrize("noise", [0.5, 1.0, 4.0, 30.0])
@pytest.mark.parametrize("count", [1, 20, 1000])
def test_epsilon_is_exact_and_so_below_what_moments_give(noise: float, count: int) -> None:
    total = count * mu_squared(noise)
    epsilon = epsilon_of(total, 1e-5)
    assert epsilon < by_moments(total, 1e-5) < inf
    assert epsilon > by_moments(total, 1e-5) * 0.5
    assert delta_of(total, epsilon) == pytest.approx(1e-5, rel=1e-6)


def test_known_values() -> None:
    # A mechanism of sensitivity 1 and sigma 1 is 1-GDP: of the table of Balle and Wang (arXiv 1805.06530), figure 1.
    assert delta_of(1.0, 1.0) == pytest.approx(0.1269, abs=1e-4)
    assert epsilon_of(0.0, 1e-5) == 0.0
    # Little is told: a delta covers all of it.
    assert epsilon_of(1e-14, 1e-5) == 0.0


def test_contributions_add_up_by_their_squares() -> None:
    assert epsilon_of(100 * mu_squared(10.0), 1e-5) == pytest.approx(epsilon_of(mu_squared(1.0), 1e-5))


def test_a_contribution_is_cut_and_has_noise_and_its_buffers_are_not_told() -> None:
    gradient = torch.full((10_000,), 3.0)
    elements = Split(9_990, 10)
    told = privatised(gradient, elements, 2.0, 0.5, np.random.default_rng(1))
    assert told.dtype == torch.float32
    assert torch.equal(told[9_990:], torch.zeros(10))
    noise = told[:9_990] - 2.0 / sqrt(9_990)
    assert float(noise.std()) == pytest.approx(1.0, rel=0.03)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.03)
    assert not torch.equal(privatised(gradient, elements, 2.0, 0.5), privatised(gradient, elements, 2.0, 0.5))


def test_a_short_contribution_is_not_made_longer() -> None:
    gradient = torch.tensor([0.3, 0.4])
    assert privatised(gradient, Split(2), 1.0, 1e-9).tolist() == pytest.approx([0.3, 0.4], abs=1e-6)
    assert privatised(torch.zeros(2), Split(2), 1.0, 1e-9).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_what_is_not_finite_is_not_told() -> None:
    with pytest.raises(ValueError, match="NaN"):
        privatised(torch.tensor([1.0, float("nan")]), Split(2), 1.0, 1.0)
