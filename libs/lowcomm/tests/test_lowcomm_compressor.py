from math import comb, log2

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.lowcomm.clip import clip_to_median
from windfall.lowcomm.compressor import COMPRESSORS, Compressor, parse_compressor
from windfall.lowcomm.contribution import decode, read, write
from windfall.lowcomm.contributors import contributor_mean
from windfall.lowcomm.dct import inverse_dct
from windfall.lowcomm.layout import digest
from windfall.lowcomm.merge import streamed_mean
from windfall.lowcomm.outer import average
from windfall.lowcomm.positions import gaps_of, positions_of
from windfall.lowcomm.sections import squeeze
from windfall.lowcomm.sparse import Contribution, Sparse, descend

SETTINGS = [
    *COMPRESSORS,
    "topk-ef:levels=1,decay=0.95",
    "topk-ef:chunk=100,keep=7",
    "dct-momentum:chunk=65535,keep=900",
]
STATEFUL = [name for name in SETTINGS if parse_compressor(name).slots]
LENGTHS = [0, 1, 2, 3, 5, 63, 64, 65, 255, 256, 257, 4095, 4096, 4097, 8192 + 130, 10_001]
lengths = st.sampled_from(LENGTHS) | st.integers(0, 10_000)


def normal(elements: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(elements, generator=torch.Generator().manual_seed(seed)) * scale


def dense(contribution: Contribution) -> torch.Tensor:
    return contribution.dense() if isinstance(contribution, Sparse) else contribution


def sent(compressor: Compressor, payload: bytes, elements: int) -> torch.Tensor:
    return dense(decode(compressor.name, payload, elements))


@pytest.mark.parametrize("name", SETTINGS)
@settings(deadline=None, max_examples=40)
@given(elements=lengths, seed=st.integers(0, 99), exponent=st.integers(-40, 30), sparsity=st.sampled_from([0, 0.5, 1]))
def test_sent_and_kept_are_what_was_given_and_kept_before(
    name: str, elements: int, seed: int, exponent: int, sparsity: float
) -> None:
    compressor = parse_compressor(name)
    gradient = normal(elements, seed, 2.0**exponent) * (normal(elements, seed + 1).sigmoid() >= sparsity)
    state, _ = compressor.encode(compressor.init(elements), normal(elements, seed + 2, 2.0**exponent))
    before, copy = [each.clone() for each in state], gradient.clone()
    after, payload = compressor.encode(state, gradient)

    assert torch.equal(gradient, copy) and all(torch.equal(a, b) for a, b in zip(state, before, strict=True))
    assert compressor.encode(state, gradient)[1] == payload, "a pure function says the same twice"
    assert len(payload) <= 4 * elements + 32, "no vector grows, however short"
    received = sent(compressor, payload, elements)
    assert received.shape == (elements,)
    if not compressor.slots:
        return
    decay = 1.0 if name == "q2-ef" else 0.95 if "0.95" in name else 0.9
    kept, kept_before = after[0], state[0]
    if compressor.name == "dct-momentum":
        kept, kept_before = (torch.from_numpy(inverse_dct(each.numpy())) for each in (kept, kept_before))
    given_ = gradient.double() + decay * kept_before.double()
    error = (received.double() + kept.double() - given_).abs()
    largest = float(given_.abs().max()) if elements else 0.0
    assert bool((error <= 2e-5 * largest + 2.0**-120).all())


@pytest.mark.parametrize(("name", "largest_code"), [("int8-block", 127), ("int4-block", 7)])
@settings(deadline=None, max_examples=60)
@given(elements=lengths, seed=st.integers(0, 99), exponent=st.integers(-140, 45))
def test_blocks_are_off_by_half_a_step_at_most(
    name: str, largest_code: int, elements: int, seed: int, exponent: int
) -> None:
    gradient = normal(elements, seed, 2.0**exponent)
    _, payload = COMPRESSORS[name]().encode((), gradient)
    error = (sent(COMPRESSORS[name](), payload, elements).double() - gradient.double()).abs()
    for block, off in zip(torch.split(gradient, 256), torch.split(error, 256), strict=True):
        if block.numel():
            assert float(off.max()) <= 0.5001 * float(block.abs().max()) / largest_code + 2.0**-100


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30], ids=str)
@pytest.mark.parametrize("at", [0, 4095, 5000], ids=str)
def test_a_gradient_that_is_not_finite_is_refused_and_the_state_still_stands(name: str, bad: float, at: int) -> None:
    compressor = parse_compressor(name)
    state, _ = compressor.encode(compressor.init(5001), normal(5001))
    poisoned = normal(5001, 1)
    poisoned[at] = bad
    with pytest.raises(ValueError, match="NaN, infinite or absurdly large"):
        compressor.encode(state, poisoned)
    assert compressor.encode(state, normal(5001, 1))


@pytest.mark.parametrize("name", STATEFUL)
def test_a_gradient_of_another_length_is_refused(name: str) -> None:
    compressor = parse_compressor(name)
    with pytest.raises(ValueError, match="expected"):
        compressor.encode(compressor.init(100), normal(101))


def test_the_largest_of_every_chunk_are_kept_and_of_equals_the_first() -> None:
    gradient = normal(10_000).mul(4).round().div(4)
    compressor = parse_compressor("topk-ef:chunk=1000,keep=30")
    _, payload = compressor.encode(compressor.init(10_000), gradient)
    contribution = decode("topk-ef", payload, 10_000)
    assert isinstance(contribution, Sparse)
    expected = []
    for begin in range(0, 10_000, 1000):
        chunk = gradient[begin : begin + 1000].abs().tolist()
        expected += sorted(sorted(range(begin, begin + 1000), key=lambda i: (-chunk[i - begin], i))[:30])
    assert contribution.positions.tolist() == expected
    assert np.array_equal(np.signbit(contribution.values), np.signbit(gradient.numpy()[expected]))


@pytest.mark.parametrize("name", SETTINGS)
def test_threads_change_no_bit(name: str) -> None:
    compressor, elements, before = parse_compressor(name), 300_001, torch.get_num_threads()
    seen = set()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            state, data = compressor.init(elements), b""
            for turn in range(3):
                state, data = write(compressor, state, normal(elements, turn), base=turn, tokens=1, steps=1)
            seen.add((data, digest(dense(read(data)[1])), *(digest(each) for each in state)))
    finally:
        torch.set_num_threads(before)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("name", "most"),
    [("int8-block", 8.13), ("int4-block", 4.13), ("q2-ef", 1.7), ("topk-ef", 0.15), ("topk-ef:levels=1", 0.136)],
    ids=str,
)
def test_bits_per_parameter_with_headers_and_scales(name: str, most: float) -> None:
    compressor, elements = parse_compressor(name), 1 << 21
    state = compressor.init(elements)
    for turn in range(3):
        state, data = write(compressor, state, normal(elements, turn), base=turn, tokens=1, steps=1)
        assert len(data) * 8 / elements <= most


def test_gaps_cost_at_most_five_percent_more_than_entropy() -> None:
    random = np.random.default_rng(0)
    chunks = [np.sort(random.choice(4096, 64, replace=False)) + 4096 * chunk for chunk in range(2000)]
    positions = np.concatenate(chunks)
    assert len(squeeze(gaps_of(positions).data)) * 8 / len(positions) <= 1.05 * log2(comb(4096, 64)) / 64


@given(st.sets(st.integers(0, 3000), max_size=60))
def test_positions_come_back(chosen: set[int]) -> None:
    positions = np.array(sorted(chosen), np.int64)
    assert positions_of(gaps_of(positions), len(positions), 3001).tolist() == sorted(chosen)
    for count, elements in [(len(positions) + 1, 3001), (len(positions), max(chosen, default=0))]:
        if chosen:
            with pytest.raises(ValueError, match=r"gaps|outside"):
                positions_of(gaps_of(positions), count, elements)


@pytest.mark.parametrize("name", SETTINGS)
def test_replicas_never_drift_apart_and_the_model_learns(name: str) -> None:
    """Three sites pull a model towards one point, each noisily; one of them leaves for a while and starts anew."""
    elements, target, compressor = 5000, normal(5000, 99), parse_compressor(name)
    replicas = [torch.zeros(elements) for _ in range(3)]
    states = [compressor.init(elements) for _ in range(3)]
    for turn in range(80):
        members = [0, 2] if 20 <= turn < 30 else [0, 1, 2]
        messages = []
        for site in members:
            local = 0.2 * (replicas[0] - target) + normal(elements, 3 * turn + site, 0.02)
            states[site], data = write(compressor, states[site], local, base=turn, tokens=100 + site, steps=1)
            messages.append(data)
        if turn == 20:
            states[1] = compressor.init(elements)
        for replica in range(3):
            read_ = [read(data)[1] for data in messages]
            tokens = [read(data)[0].tokens for data in messages]
            sparse = [each for each in clip_to_median(read_) if isinstance(each, Sparse)]
            if sparse:
                replicas[replica] = descend(replicas[replica], contributor_mean(sparse, tokens))
            else:
                mean = streamed_mean((dense(each) for each in read_), tokens)
                _, replicas[replica] = average().apply((), replicas[replica], mean)
        assert len({digest(each) for each in replicas}) == 1
    assert float((replicas[0] - target).square().mean()) < 0.35


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("topk", "unknown compressor"),
        ("topk-ef:size=3", "unknown; known are"),
        ("topk-ef:keep=x", "keep is a number"),
        ("topk-ef:keep=1.5", "whole number"),
        ("topk-ef:keep=inf", "whole number"),
        ("topk-ef:keep=0", "cannot keep"),
        ("topk-ef:keep=5000", "cannot keep"),
        ("topk-ef:chunk=70000", "cannot keep"),
        ("dct-momentum:levels=3", "cannot keep"),
        ("q2-ef:decay=1.1", "decay"),
        ("fp32:decay=1", "unknown; known are"),
    ],
)
def test_a_wrong_setting_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_compressor(text)
