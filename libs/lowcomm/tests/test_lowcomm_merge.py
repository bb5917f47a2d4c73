from itertools import permutations

import numpy as np
import pytest
import torch

from windfall.lowcomm.merge import weighted_mean


def vector(seed: int, elements: int = 1003) -> torch.Tensor:
    return torch.randn(elements, generator=torch.Generator().manual_seed(seed))


def test_weights_are_shares_of_the_tokens() -> None:
    chunks = [torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]), torch.tensor([1.0, 7.0])]
    assert weighted_mean(chunks, [2, 4, 2]).tolist() == [1.5, 3.75]


def test_one_contribution_comes_back_exactly() -> None:
    assert torch.equal(weighted_mean([vector(1)], [12345]), vector(1))


def test_the_arguments_are_left_alone() -> None:
    chunks = [vector(1), vector(2)]
    weighted_mean(chunks, [1, 2])
    assert torch.equal(chunks[0], vector(1)) and torch.equal(chunks[1], vector(2))


def test_sorted_contributions_merge_to_the_same_bits_whatever_the_order_of_arrival() -> None:
    arrived = [("a", vector(1), 640), ("b", vector(2), 1920), ("c", vector(3), 7)]
    merged = []
    for order in permutations(arrived):
        ordered = sorted(order, key=lambda each: each[0])
        merged.append(weighted_mean([chunk for _, chunk, _ in ordered], [tokens for _, _, tokens in ordered]))
    assert all(torch.equal(each, merged[0]) for each in merged)


@pytest.mark.parametrize("size", [1, 7, 16, 1003], ids=str)
def test_chunk_by_chunk_gives_the_bits_of_the_whole(size: int) -> None:
    chunks, weights = [vector(1), vector(2), vector(3)], [3, 5, 11]
    pieces = [weighted_mean([chunk[at : at + size] for chunk in chunks], weights) for at in range(0, 1003, size)]
    assert torch.equal(torch.cat(pieces), weighted_mean(chunks, weights))


def test_the_bits_are_those_of_plain_ieee_arithmetic() -> None:
    """numpy multiplies and adds in two roundings; a fused kernel would differ in about a third of the elements."""
    chunks, weights = [vector(1), vector(2)], [3, 8]
    expected = chunks[0].numpy() * np.float32(3 / 11) + chunks[1].numpy() * np.float32(8 / 11)
    assert np.array_equal(weighted_mean(chunks, weights).numpy(), expected)


@pytest.mark.parametrize(
    ("chunks", "weights"),
    [
        ([], []),
        ([torch.ones(2)], []),
        ([torch.ones(2)], [0]),
        ([torch.ones(2), torch.ones(2)], [1, -1]),
        ([torch.ones(2), torch.ones(3)], [1, 1]),
        ([torch.ones(2, dtype=torch.float64)], [1]),
    ],
    ids=["empty", "unequal", "zero", "negative", "shapes", "dtype"],
)
def test_what_has_no_mean_is_refused(chunks: list[torch.Tensor], weights: list[int]) -> None:
    with pytest.raises(ValueError, match=r"mean|weight|chunks"):
        weighted_mean(chunks, weights)
