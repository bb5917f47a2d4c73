from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from windfall.lowcomm.clip import clip_to_median, norm
from windfall.lowcomm.contributors import contributor_mean
from windfall.lowcomm.layout import digest
from windfall.lowcomm.merge import streamed_mean, weighted_mean
from windfall.lowcomm.outer import average
from windfall.lowcomm.rda import radial_directional_mean
from windfall.lowcomm.sparse import Sparse, descend


def sparse(known: dict[int, float], elements: int = 100, dct: bool = False) -> Sparse:
    positions = sorted(known)
    return Sparse(elements, np.array(positions, np.int64), np.array([known[p] for p in positions], np.float32), dct)


def vector(seed: int, elements: int = 1003) -> torch.Tensor:
    return torch.randn(elements, generator=torch.Generator().manual_seed(seed))


coordinates = st.dictionaries(st.integers(0, 99), st.floats(-1e6, 1e6, width=32), max_size=20)


@given(st.lists(st.tuples(coordinates, st.integers(1, 2**40)), min_size=1, max_size=5))
def test_every_coordinate_is_the_mean_of_those_that_sent_it(sites: list[tuple[dict[int, float], int]]) -> None:
    mean = contributor_mean([sparse(known) for known, _ in sites], [tokens for _, tokens in sites])
    assert mean.positions.tolist() == sorted(set().union(*(known for known, _ in sites)))
    for position, value in zip(mean.positions.tolist(), mean.values, strict=True):
        sent = [(known[position], tokens) for known, tokens in sites if position in known]
        expected = sum(x * tokens for x, tokens in sent) / sum(tokens for _, tokens in sent)
        assert value == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(known=coordinates, tokens=st.integers(1, 2**50))
def test_one_contribution_comes_back_exactly(known: dict[int, float], tokens: int) -> None:
    mean, one = contributor_mean([sparse(known)], [tokens]), sparse(known)
    assert np.array_equal(mean.positions, one.positions) and np.array_equal(mean.values, one.values)


def test_sorted_contributions_merge_to_the_same_bits_whatever_the_order_of_arrival() -> None:
    random = np.random.default_rng(0)
    arrived = []
    for site in "abcd":
        positions = np.sort(random.choice(5000, 700, replace=False))
        values = random.standard_normal(700).astype(np.float32)
        arrived.append((site, Sparse(5000, positions, values), int(random.integers(1, 9999))))
    digests = set()
    for order in permutations(arrived):
        ordered = sorted(order, key=lambda each: each[0])
        mean = contributor_mean([each for _, each, _ in ordered], [tokens for _, _, tokens in ordered])
        digests.add(digest(mean.dense()))
    assert len(digests) == 1


@pytest.mark.parametrize("dct", [False, True])
@pytest.mark.parametrize("lr", [1.0, 0.65])
def test_a_sparse_step_has_the_bits_of_the_dense_one(dct: bool, lr: float) -> None:
    gradient = sparse({0: 1.5, 3: -0.25, 64: 1e-3, 99: 7.0}, dct=dct)
    base = vector(1, 100)
    _, expected = average(lr).apply((), base, gradient.dense())
    assert torch.equal(descend(base, gradient, lr), expected)
    assert torch.equal(base, vector(1, 100))
    with pytest.raises(ValueError, match="expected 100 elements"):
        descend(vector(1, 101), gradient)


@pytest.mark.parametrize(
    ("contributions", "weights", "why"),
    [
        ([], [], "at least one"),
        ([sparse({1: 1.0})], [], "one weight"),
        ([sparse({1: 1.0})], [0], "positive"),
        ([sparse({1: 1.0}), sparse({1: 1.0}, 99)], [1, 1], "one length"),
        ([sparse({1: 1.0}), sparse({1: 1.0}, dct=True)], [1, 1], "one basis"),
    ],
)
def test_what_has_no_mean_is_refused(contributions: list[Sparse], weights: list[int], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        contributor_mean(contributions, weights)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=5))
def test_a_streamed_mean_has_the_bits_of_the_mean(weights: list[int]) -> None:
    chunks = [vector(seed) for seed in range(len(weights))]
    assert torch.equal(streamed_mean(iter(chunks), weights), weighted_mean(chunks, weights))
    assert all(torch.equal(chunk, vector(seed)) for seed, chunk in enumerate(chunks))
    for wrong in (weights[:-1], [*weights, 1], [0] * len(weights)):
        with pytest.raises(ValueError, match="a mean needs"):
            streamed_mean(iter(chunks), wrong)


def test_a_streamed_mean_refuses_chunks_that_differ() -> None:
    for chunks in ([torch.ones(2), torch.ones(3)], [torch.ones(2, dtype=torch.float64)]):
        with pytest.raises(ValueError, match="fp32 of one shape"):
            streamed_mean(iter(chunks), [1] * len(chunks))


@pytest.mark.parametrize("elements", [0, 1, 1003, 70_000])
def test_the_norm(elements: int) -> None:
    assert norm(vector(3, elements)) == pytest.approx(float(vector(3, elements).double().norm()), rel=1e-12)


def test_nobody_pulls_harder_than_the_median() -> None:
    small, middle, large = torch.tensor([0.0, 1.0]), torch.tensor([3.0, 4.0]), torch.tensor([600.0, 800.0])
    clipped = clip_to_median([small, large, middle])
    assert clipped[0] is small and clipped[2] is middle
    torch.testing.assert_close(clipped[1], middle * 0 + torch.tensor([3.0, 4.0]))
    one = clip_to_median([sparse({1: 3.0}), sparse({1: 30.0}), sparse({2: 3.0})])[1]
    assert isinstance(one, Sparse) and one.positions.tolist() == [1] and one.values.tolist() == [3.0]
    assert clip_to_median([]) == []
    assert torch.equal(clip_to_median([torch.zeros(3)])[0], torch.zeros(3))  # type: ignore[arg-type]


def test_directions_and_lengths_are_averaged_apart() -> None:
    """Two sites of length 1 and 3 at a right angle: a plain mean is of length 1.58, this one of length 2."""
    chunks = [torch.tensor([1.0, 0.0, 5.0]), torch.tensor([0.0, 3.0, 7.0])]
    mean = radial_directional_mean(chunks, [1, 1], [slice(0, 2)])
    torch.testing.assert_close(mean, torch.tensor([2**0.5, 2**0.5, 6.0]))
    assert torch.equal(radial_directional_mean(chunks, [1, 1], []), weighted_mean(chunks, [1, 1]))
    opposed = [torch.tensor([1.0]), torch.tensor([-1.0])]
    assert radial_directional_mean(opposed, [1, 1], [slice(0, 1)]).tolist() == [0.0]
    zeros = [torch.zeros(2), torch.tensor([0.0, 2.0])]
    torch.testing.assert_close(radial_directional_mean(zeros, [1, 1], [slice(0, 2)]), torch.tensor([0.0, 1.0]))
