from math import cos, pi, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.lowcomm import dct
from windfall.lowcomm.dct import RUN, forward_dct, inverse_dct


def normal(elements: int, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal(elements).astype(np.float32)


def test_it_is_the_orthonormal_dct_ii_with_even_frequencies_first() -> None:
    run = normal(RUN)
    expected = [
        sqrt((1 if f == 0 else 2) / RUN)
        * sum(float(x) * cos(pi * (2 * t + 1) * f / (2 * RUN)) for t, x in enumerate(run))
        for f in [*range(0, RUN, 2), *range(1, RUN, 2)]
    ]
    np.testing.assert_allclose(forward_dct(run), expected, atol=2.0**-18 * np.abs(run).max())


@settings(deadline=None)
@given(elements=st.integers(0, 1000), seed=st.integers(0, 99), exponent=st.integers(-120, 45))
def test_back_and_forth_keeps_vector_length_and_norm(elements: int, seed: int, exponent: int) -> None:
    vector = normal(elements, seed) * np.float32(2.0**exponent)
    there = forward_dct(vector)
    back = inverse_dct(there)
    assert there.shape == back.shape == vector.shape
    assert np.array_equal(there[elements // RUN * RUN :], vector[elements // RUN * RUN :])
    limit = 2.0**-17 * np.abs(vector).max() if elements else 0.0
    np.testing.assert_allclose(back, vector, rtol=0, atol=limit)
    assert np.linalg.norm(there.astype(np.float64)) == pytest.approx(
        np.linalg.norm(vector.astype(np.float64)), rel=1e-5
    )


def test_products_are_exact_so_that_no_order_of_addition_matters() -> None:
    """Against arithmetic of whole numbers without any limit."""
    run = normal(RUN, 7) * np.float32(1e-3)
    exponent = int(np.frexp(np.abs(run).max())[1])
    whole = [round(float(x) * 2.0 ** (23 - exponent)) for x in run]
    expected = []
    for row in dct._EVEN:
        pairs = zip(row, range(RUN // 2), strict=True)
        expected.append(sum(int(d) * (whole[t] + whole[RUN - 1 - t]) for d, t in pairs))
    unit = 2.0 ** (exponent - 23 - 24)
    assert np.array_equal(forward_dct(run)[: RUN // 2], np.array([np.float32(each * unit) for each in expected]))


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_batches_and_threads_change_no_bit(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vector = normal(50_001)
    there, back = forward_dct(vector), inverse_dct(vector)
    monkeypatch.setattr(dct, "_BATCH", batch)
    assert np.array_equal(forward_dct(vector), there)
    assert np.array_equal(inverse_dct(vector), back)
    assert np.array_equal(inverse_dct(copy := vector.copy(), out=copy), back)


def test_the_matrix_is_the_same_everywhere() -> None:
    """Whole numbers: a library whose cosine is off in the last place still rounds to them."""
    assert int(dct._EVEN.sum()) == 67108864 and int(np.abs(dct._ODD).sum()) == 1933608672
    both = torch.from_numpy(np.concatenate([dct._EVEN, dct._ODD]) / 2.0**24)
    torch.testing.assert_close((both @ both.T).diag(), torch.full((RUN,), 0.5, dtype=torch.float64), rtol=0, atol=1e-6)
