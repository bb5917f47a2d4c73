"""Merges that a liar cannot move at will: median, trimmed mean, Krum and Multi-Krum."""

from collections.abc import Sequence
from itertools import permutations
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.lowcomm import bands, contributors
from windfall.lowcomm.columns import merge_columns
from windfall.lowcomm.compressor import COMPRESSORS
from windfall.lowcomm.distances import inner_products, squared_distances
from windfall.lowcomm.krum import krum, multi_krum
from windfall.lowcomm.layout import Split, digest
from windfall.lowcomm.median import median
from windfall.lowcomm.outerlog import Accepted, read, replay, write_entry
from windfall.lowcomm.rule import Rule, Said
from windfall.lowcomm.sparse import Contribution, Sparse
from windfall.lowcomm.trimmed import trimmed_mean

Floats = npt.NDArray[np.float32]

SPLIT = Split(5000, 7)
ROBUST = ["median", "trimmed-mean:share=0.25", "krum:byzantine=1", "multi-krum:byzantine=1"]
by_merge = pytest.mark.parametrize("merge", ROBUST)
by_codec = pytest.mark.parametrize("codec", COMPRESSORS)

numbers = st.floats(-1e6, 1e6, width=32)
tables = st.integers(1, 9).flatmap(
    lambda sites: st.lists(st.lists(numbers, min_size=5, max_size=5), min_size=sites, max_size=sites)
)


def vector(seed: int, elements: int = SPLIT.elements, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(elements, generator=torch.Generator().manual_seed(seed)) * scale


def message(rule: Rule, gradient: torch.Tensor, split: Split = SPLIT) -> bytes:
    return rule.encode(rule.codec.init(split.trained), gradient, split, base=0, tokens=9, steps=1)[1]


def said(rule: Rule, gradients: Sequence[torch.Tensor], split: Split = SPLIT) -> list[Said]:
    return [
        Said(f"site-{index:03d}", 1, 100.0 + index, rule.decode(message(rule, one, split), split)[1])
        for index, one in enumerate(gradients)
    ]


def dense(contribution: Contribution) -> torch.Tensor:
    return contribution.dense() if isinstance(contribution, Sparse) else contribution


def sparse(known: dict[int, float], elements: int = 100) -> Sparse:
    at = sorted(known)
    return Sparse(elements, np.array(at, np.int64), np.array([known[one] for one in at], np.float32))


# --- what each of them gives, beside the slowest way to say it --------------------------------------------------------


def slow_median(column: Sequence[float]) -> float:
    ordered = sorted(column)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def slow_trimmed(column: Sequence[float], share: float) -> float:
    out = min(ceil(round(share * len(column), 6)), (len(column) - 1) // 2)
    left = sorted(column)[out : len(column) - out]
    return sum(left) / len(left)


@settings(deadline=None)
@given(tables, st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.49]))
def test_of_every_coordinate_the_middle_or_the_mean_of_what_is_left(table: list[list[float]], share: float) -> None:
    rows = [torch.tensor(row, dtype=torch.float32) for row in table]
    columns = list(zip(*table, strict=True))
    middle, trimmed = merge_columns(median, rows), merge_columns(trimmed_mean(share), rows)
    torch.testing.assert_close(dense(middle), torch.tensor([slow_median(one) for one in columns]))
    expected = torch.tensor([slow_trimmed(one, share) for one in columns])
    torch.testing.assert_close(dense(trimmed), expected, atol=1e-6, rtol=1e-5)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.integers(0, 30), numbers, max_size=12), min_size=1, max_size=7))
def test_a_coordinate_that_was_not_sent_is_no_opinion(sites: list[dict[int, float]]) -> None:
    sent = sorted({at for one in sites for at in one})
    for pick, slow in ((median, slow_median), (trimmed_mean(0.2), lambda column: slow_trimmed(column, 0.2))):
        merged = merge_columns(pick, [sparse(one) for one in sites])
        assert isinstance(merged, Sparse) and merged.positions.tolist() == sent
        expected = [slow([one[at] for one in sites if at in one]) for at in sent]
        np.testing.assert_allclose(merged.values, np.array(expected, np.float32), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sites", [1, 2, 5, 23, 24, 25, 26, 100])
def test_few_and_many_sites_are_ordered_alike(sites: int) -> None:
    rows = [vector(seed, 700) for seed in range(sites)]
    ordered = np.sort(np.stack([row.numpy() for row in rows]), axis=0)
    assert np.array_equal(dense(merge_columns(median, rows)).numpy(), median(ordered))


def slow_krum(vectors: Sequence[Floats], liars: int) -> list[int]:
    """Sites in the order of their score, by the definition, in doubles."""
    scores = []
    for one in vectors:
        away = sorted(float(((one - other).astype(np.float64) ** 2).sum()) for other in vectors)[1:]
        scores.append(sum(away[: max(1, len(vectors) - liars - 2)]))
    return sorted(range(len(vectors)), key=lambda index: scores[index])


@settings(deadline=None)
@given(st.integers(3, 9), st.integers(0, 3), st.integers(0, 1000))
def test_krum_ranks_as_the_definition_does(sites: int, liars: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    vectors = [generator.normal(size=300).astype(np.float32) * (1 + index / 4) for index in range(sites)]
    distances = squared_distances(inner_products([torch.from_numpy(one) for one in vectors]))
    ranked = slow_krum(vectors, liars)
    assert krum(liars)(distances) == ranked[:1]
    assert multi_krum(liars)(distances) == sorted(ranked[: max(1, sites - liars)])


@settings(deadline=None)
@given(st.lists(st.lists(numbers, min_size=20, max_size=20), min_size=1, max_size=6))
def test_distances_are_those_of_doubles_up_to_seventeen_bits(table: list[list[float]]) -> None:
    rows = [np.array(row, np.float32) for row in table]
    found = squared_distances(inner_products([torch.from_numpy(row) for row in rows]))
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            size = float((one.astype(np.float64) ** 2).sum() + (other.astype(np.float64) ** 2).sum())
            exact = float(((one.astype(np.float64) - other) ** 2).sum())
            assert abs(found[i, j] - exact) <= 20 * 2.0**-14 * size + 1e-30


def test_sparse_contributions_lie_as_far_apart_as_the_vectors_that_they_are() -> None:
    rows = [sparse({1: 3.0, 7: 1.0}), sparse({2: -2.0}), sparse({})]
    assert np.array_equal(
        squared_distances(inner_products(rows)), squared_distances(inner_products([one.dense() for one in rows]))
    )


# --- liars ------------------------------------------------------------------------------------------------------------


def lies(kind: str, honest: torch.Tensor) -> torch.Tensor:
    return {"scaled": honest * 1e6, "flipped": -50 * honest, "constant": torch.full_like(honest, 1e9)}[kind]


@settings(deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda honest: st.tuples(
            st.lists(st.lists(numbers, min_size=4, max_size=4), min_size=honest + 1, max_size=honest + 1),
            st.lists(st.lists(st.floats(-(2.0**46), 2.0**46, width=32), min_size=4, max_size=4), max_size=honest),
        )
    )
)
def test_a_minority_moves_the_median_no_further_than_the_honest_go(both: Any) -> None:
    honest, liars = both
    rows = torch.tensor(honest + liars, dtype=torch.float32)
    merged = dense(merge_columns(median, list(rows)))
    good = torch.tensor(honest, dtype=torch.float32)
    assert bool((merged >= good.min(dim=0).values).all() and (merged <= good.max(dim=0).values).all())


@settings(deadline=None)
@given(
    st.integers(3, 9),
    st.sampled_from([0.1, 0.2, 0.3, 0.4]),
    st.integers(0, 2**20),
    st.floats(-(2.0**46), 2.0**46, width=32),
)
def test_the_share_that_is_trimmed_moves_the_mean_no_further_than_the_honest_go(
    sites: int, share: float, seed: int, lie: float
) -> None:
    liars = min(ceil(share * sites - 1e-9), (sites - 1) // 2)
    rows = [vector(seed + index, 6) for index in range(sites)]
    rows[:liars] = [torch.full((6,), lie)] * liars
    merged = dense(merge_columns(trimmed_mean(share), rows))
    good = torch.stack(rows[liars:])
    below, above = good.min(dim=0).values, good.max(dim=0).values
    # One rounding, to fp32, may lie outside by the last bit.
    assert bool((merged >= below - below.abs() * 2e-7).all() and (merged <= above + above.abs() * 2e-7).all())


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 2), st.integers(0, 2), st.integers(0, 1000), st.sampled_from(["scaled", "flipped", "constant"]))
def test_krum_counts_no_liar_that_lies_further_away_than_every_honest_site(
    liars: int, more: int, seed: int, kind: str
) -> None:
    sites = 2 * liars + 3 + more
    direction = vector(seed, 400)
    rows = [direction + vector(1000 * (seed + 1) + index, 400, 0.3) for index in range(sites - liars)]
    rows += [lies(kind, direction)] * liars
    distances = squared_distances(inner_products(rows))
    assert multi_krum(liars)(distances) == list(range(sites - liars))
    assert krum(liars)(distances)[0] < sites - liars


@by_merge
@by_codec
@pytest.mark.parametrize("kind", ["scaled", "flipped"])
def test_through_every_codec_a_liar_of_five_leaves_the_step_near_the_honest_one(
    merge: str, codec: str, kind: str
) -> None:
    # Honest sites learn nearly the same: what the largest coordinates are, most agree on.
    direction = vector(0) ** 3
    honest = [direction + vector(10 + seed, scale=0.01) for seed in range(4)]
    plain, robust = Rule.parse(codec), Rule.parse(codec, merge=merge)
    among = said(plain, [*honest, lies(kind, direction)])
    expected = dense(plain.merge(among[:4], SPLIT)[0])
    moved = {
        rule.settings[3]: float((dense(rule.merge(among, SPLIT)[0]) - expected).norm()) for rule in (plain, robust)
    }
    coarse = 0.5 if merge in ROBUST[:2] and plain.sparse else 0.15
    assert moved[merge] < coarse * float(expected.norm()) < moved["mean"]
    # Counters and buffers are no back door.
    exact = torch.stack([one.parts[1] for one in among[:4]])  # type: ignore[misc]
    found = robust.merge(among, SPLIT)[1]
    assert isinstance(found, torch.Tensor)
    assert bool((found >= exact.min(dim=0).values - 1e-6).all() and (found <= exact.max(dim=0).values + 1e-6).all())


# --- the same bits ----------------------------------------------------------------------------------------------------


@by_merge
@by_codec
def test_the_order_of_arrival_changes_no_bit_and_tokens_weigh_nothing(merge: str, codec: str) -> None:
    rule = Rule.parse(codec, merge=merge)
    among = said(rule, [vector(seed, scale=1 + seed / 8) for seed in range(4)])
    expected = [digest(dense(part)) for part in rule.merge(among, SPLIT)]
    for order in permutations(among):
        heavy = [Said(one.site, one.attempt, one.tokens * 1e6 if one is order[0] else 1, one.parts) for one in order]
        assert [digest(dense(part)) for part in rule.merge(heavy, SPLIT)] == expected


@by_merge
@by_codec
@pytest.mark.parametrize("sites", [1, 2, 3, 6])
def test_whoever_replays_the_log_has_the_coordinators_bits_however_few_there_are(
    merge: str, codec: str, sites: int
) -> None:
    rule = Rule.parse(codec, merge=merge, clip=sites == 6)
    base, state, log = vector(99), rule.init(SPLIT), b""
    begin = base
    for number in range(2):
        among = said(rule, [vector(10 * number + seed) for seed in range(sites)])
        before = digest(base)
        state, base = rule.step(state, base, rule.merge(among, SPLIT), SPLIT)
        accepted = [
            Accepted.of(one.site, 1, one.tokens, message(rule, vector(10 * number + seed)))
            for seed, one in enumerate(among)
        ]
        log += write_entry(number, before, digest(base), accepted)
    other = Rule.parse(*rule.settings)
    _, replica = replay(other, SPLIT, other.init(SPLIT), begin, read(log, SPLIT))
    assert digest(replica) == digest(base)


@by_merge
@pytest.mark.parametrize("codec", ["fp32", "topk-ef", "dct-momentum"])
def test_one_site_comes_back_as_it_is_and_two_as_their_mean(merge: str, codec: str) -> None:
    rule = Rule.parse(codec, merge=merge)
    one, other = said(rule, [vector(1), vector(2)])
    assert [digest(dense(part)) for part in rule.merge([one], SPLIT)] == [digest(dense(part)) for part in one.parts]
    alike = Rule.parse(codec).merge([Said(each.site, 1, 1.0, each.parts) for each in (one, other)], SPLIT)
    for found, expected in zip(rule.merge([one, other], SPLIT), alike, strict=True):
        torch.testing.assert_close(dense(found), dense(expected))


@by_merge
@pytest.mark.parametrize("codec", ["fp32", "int8-block", "topk-ef", "dct-momentum"])
def test_band_by_band_gives_the_bits_of_the_whole(merge: str, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    split = Split(3 * bands.RUN + 4097, 5)
    rule = Rule.parse(codec, merge=merge, clip=True)
    among = said(rule, [vector(seed, split.elements) for seed in range(4)], split)
    whole = [digest(dense(part)) for part in rule.merge(among, split)]
    monkeypatch.setattr(bands, "_LEAST", 1)
    monkeypatch.setattr(bands, "_SPARSER", 1)
    assert [digest(dense(part)) for part in rule.merge(among, split)] == whole


def test_zeros_have_one_sign() -> None:
    merged = dense(merge_columns(median, [torch.tensor([-0.0]), torch.tensor([0.0]), torch.tensor([-0.0])]))
    assert not bool(torch.signbit(merged).any())


@pytest.mark.parametrize(
    "wrong",
    [[], [torch.ones(2), torch.ones(3)], [torch.ones(100), sparse({})], [sparse({}), sparse({}, 99)]],
    ids=["none", "lengths", "kinds", "sparse lengths"],
)
def test_what_cannot_be_laid_beside_each_other_is_refused(wrong: list[Contribution]) -> None:
    with pytest.raises(ValueError, match=r"at least one|one shape|one length"):
        merge_columns(median, wrong)


@pytest.mark.parametrize("merge", ["mean", "median", "multi-krum:byzantine=1"])
@pytest.mark.parametrize("codec", ["topk-ef", "dct-momentum", "topk-ef:keep=2048"])
def test_many_sparse_contributions_are_kept_as_a_vector_and_move_the_model_alike(
    merge: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = Split(2 * bands.RUN + 4099, 3)
    rule = Rule.parse(codec, merge=merge)
    among = said(rule, [vector(seed, split.elements) for seed in range(5)], split)
    base = vector(99, split.elements)
    stepped = []
    # Never as a vector, as one where it is shorter, always; and with and without sums as long as the vector.
    for size, dense_from, least in ((0, 0, 1 << 24), (12, 8, 1), (10**9, 10**9, 1), (10**9, 0, 1 << 24)):
        monkeypatch.setattr(bands, "_SPARSE_BYTES", size)
        monkeypatch.setattr(contributors, "_DENSE", dense_from)
        monkeypatch.setattr(bands, "_LEAST", least)
        stepped.append(digest(rule.step(rule.init(split), base, rule.merge(among, split), split)[1]))
    assert len(set(stepped)) == 1
