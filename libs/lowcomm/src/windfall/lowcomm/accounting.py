"""What contributions with Gaussian noise tell of a site's data at most: epsilon and delta, exactly.

A contribution whose norm is cut down to C, with noise of standard deviation z · C in every element, is a Gaussian
mechanism: of two contributions from whatever data, one is at most 2 C from the other. So it is μ-GDP with μ = 2 / z
(Dong, Roth and Su, Gaussian Differential Privacy, arXiv 1905.02383, theorem 2.7). Any number of them, each chosen with
the others in view, are together √(Σ μ²)-GDP (corollary 3.3), and what is μ-GDP is (ε, δ(ε))-DP with
δ(ε) = Φ(−ε/μ + μ/2) − e^ε Φ(−ε/μ − μ/2) (corollary 2.13). Nothing is lost on the way, as it is with Rényi's moments.
"""

from math import erfc, exp, log, log1p, pi, sqrt
from typing import Final

_FAR: Final = -30.0
"""Standard deviations from which on the complementary error function is near its underflow."""
_STEPS: Final = 200
"""Of a bisection: more than a double has bits."""


def mu_squared(noise: float) -> float:
    """What one contribution adds to Σ μ², when the data of its site may be any.

    Args:
        noise: standard deviation of the noise, as a multiple of the norm that contributions are cut down to.
    """
    return (2.0 / noise) ** 2


def delta_of(total: float, epsilon: float) -> float:
    """The δ that goes with an ε.

    Args:
        total: Σ μ² of all that was told.
    """
    if not total:
        return 0.0
    mu = sqrt(total)
    below = exp(_log_phi(-epsilon / mu + mu / 2))
    return max(0.0, below - exp(min(0.0, epsilon + _log_phi(-epsilon / mu - mu / 2))))


def epsilon_of(total: float, delta: float) -> float:
    """The least ε, to some digits from above, of (ε, δ)-differential privacy.

    Args:
        total: Σ μ² of all that was told; 0 when nothing was.
        delta: over 0 and below 1.
    """
    if delta_of(total, 0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while delta_of(total, high) > delta:
        low, high = high, high * 2
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(total, middle) > delta else (low, middle)
    return high


def _log_phi(x: float) -> float:
    """The logarithm of the normal distribution's cumulative function."""
    if x > _FAR:
        return log(erfc(-x / sqrt(2)) / 2)
    # The first terms of Mills' ratio: to ten digits, this far out.
    return -x * x / 2 - log(-x * sqrt(2 * pi)) + log1p(-1 / x**2 + 3 / x**4)
