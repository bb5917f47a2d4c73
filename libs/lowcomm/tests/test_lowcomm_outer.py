import pytest
import torch

from windfall.lowcomm.outer import OUTERS, Outer, average, delayed_nesterov, nesterov, parse_outer

EVERY = [average(), average(0.3), nesterov(), nesterov(0.4, 0.0), delayed_nesterov(), delayed_nesterov(arrivals=1)]


def vector(seed: int, elements: int = 1003) -> torch.Tensor:
    return torch.randn(elements, generator=torch.Generator().manual_seed(seed))


def test_averaging_gives_the_local_models_mean() -> None:
    base, local = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 4.0])
    state, new = average().apply((), base, base - local)
    assert state == ()
    assert torch.equal(new, local)


def test_nesterov_by_hand() -> None:
    outer = nesterov(lr=0.5, momentum=0.5)
    base, gradient = torch.tensor([4.0]), torch.tensor([1.0])
    state, base = outer.apply(outer.init(1), base, gradient)
    assert state[0].tolist() == [1.0] and base.tolist() == [4.0 - 0.5 * 1.5]
    state, base = outer.apply(state, base, gradient)
    assert state[0].tolist() == [1.5] and base.tolist() == [3.25 - 0.5 * 1.75]


def test_nesterov_is_the_one_of_torch() -> None:
    outer, parameter = nesterov(0.7, 0.9), torch.nn.Parameter(vector(0))
    reference = torch.optim.SGD([parameter], lr=0.7, momentum=0.9, nesterov=True)
    state, base = outer.init(1003), vector(0)
    for seed in range(1, 6):
        parameter.grad = vector(seed)
        reference.step()
        state, base = outer.apply(state, base, vector(seed))
    torch.testing.assert_close(base, parameter.detach())


@pytest.mark.parametrize("lr", [0.7, 0.3])
@pytest.mark.parametrize("arrivals", [1, 2, 3, 7])
def test_delayed_nesterov_is_the_equation_in_double_precision(lr: float, arrivals: int) -> None:
    outer = delayed_nesterov(lr, 0.9, arrivals)
    state, base = outer.init(1003), vector(0)
    theta, moment = vector(0).double(), torch.zeros(1003, dtype=torch.float64)
    waiting: list[torch.Tensor] = []
    for arrival in range(1, 23):
        gradient = vector(arrival)
        state, base = outer.apply(state, base, gradient)
        waiting.append(gradient.double())
        if arrival % arrivals:
            theta = theta - lr * waiting[-1] / arrivals
        else:
            moment = 0.9 * moment + torch.stack(waiting).sum(0) / arrivals
            theta = theta - lr * (0.9 * moment + waiting[-1] / arrivals)
            waiting = []
        assert state[2].tolist() == [arrival % arrivals]
        torch.testing.assert_close(base.double(), theta, rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(state[0].double(), moment, rtol=1e-6, atol=1e-5)


def test_delayed_nesterov_without_delay_is_nesterov() -> None:
    delayed, plain = delayed_nesterov(0.7, 0.9, 1), nesterov(0.7, 0.9)
    state, base, expected_state, expected = delayed.init(1003), vector(0), plain.init(1003), vector(0)
    for seed in range(1, 6):
        state, base = delayed.apply(state, base, vector(seed))
        expected_state, expected = plain.apply(expected_state, expected, vector(seed))
        assert torch.equal(base, expected)


@pytest.mark.parametrize("outer", EVERY, ids=lambda outer: outer.name)
@pytest.mark.parametrize("size", [1, 5, 16, 1000], ids=str)
@pytest.mark.parametrize("counted", [0, 3])
def test_chunk_by_chunk_gives_the_bits_of_the_whole(outer: Outer, size: int, counted: int) -> None:
    slots = outer.slots
    state = (*(vector(10 + slot) for slot in range(slots)), *(torch.tensor([float(counted)]),) * outer.counters)
    base, gradient = vector(1), vector(2)
    expected_state, expected_base = outer.apply(state, base, gradient)

    pieces = [
        outer.apply(
            (*(slot[at : at + size] for slot in state[:slots]), *state[slots:]),
            base[at : at + size],
            gradient[at : at + size],
        )
        for at in range(0, base.numel(), size)
    ]
    assert torch.equal(torch.cat([new for _, new in pieces]), expected_base)
    for slot, expected in enumerate(expected_state[:slots]):
        assert torch.equal(torch.cat([moved[slot] for moved, _ in pieces]), expected)
    for moved, _ in pieces:
        assert moved[slots:] == expected_state[slots:]


@pytest.mark.parametrize("outer", EVERY, ids=lambda outer: outer.name)
def test_apply_changes_none_of_its_arguments(outer: Outer) -> None:
    state, base, gradient = outer.init(1003), vector(1), vector(2)
    moved, _ = outer.apply(state, base, gradient)
    assert tuple(map(len, moved)) == tuple(map(len, state)) == outer.sizes(1003)
    assert outer.sizes(1003) == (1003,) * outer.slots + (1,) * outer.counters
    assert not any(slot.any() for slot in state)
    assert torch.equal(base, vector(1)) and torch.equal(gradient, vector(2))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("average", average()),
        ("average:lr=0.5", average(0.5)),
        ("nesterov", nesterov()),
        ("nesterov:lr=0.7,momentum=0.9", nesterov(0.7, 0.9)),
        (" nesterov: momentum = 0.5 ", nesterov(momentum=0.5)),
        ("delayed-nesterov:arrivals=2", delayed_nesterov(arrivals=2)),
    ],
    ids=str,
)
def test_a_setting_is_read(text: str, expected: Outer) -> None:
    outer = parse_outer(text)
    assert (outer.name, outer.slots) == (expected.name, expected.slots)
    state = outer.init(1003)
    assert torch.equal(outer.apply(state, vector(1), vector(2))[1], expected.apply(state, vector(1), vector(2))[1])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "unknown outer optimizer ''; known are average, delayed-nesterov, nesterov"),
        ("adam", "unknown outer optimizer 'adam'"),
        ("nesterov:beta=1", "setting 'beta' is unknown; known are lr, momentum"),
        ("average:momentum=0.9", "setting 'momentum' is unknown; known are lr"),
        ("nesterov:lr=1,lr=2", "setting 'lr' is given twice"),
        ("nesterov:lr=much", "lr is a number, not 'much'"),
        ("nesterov:lr", "lr is a number, not ''"),
        ("average:lr=0", "must be positive and finite, not 0"),
        ("average:lr=inf", "must be positive and finite, not inf"),
        ("nesterov:momentum=1", "at least 0 and below 1, not 1"),
        ("delayed-nesterov:arrivals=0", "whole number from 1 to 2.20, not 0"),
        ("delayed-nesterov:arrivals=2.5", "whole number from 1 to 2.20, not 2.5"),
        ("delayed-nesterov:arrivals=nan", "whole number from 1 to 2.20, not nan"),
        ("nesterov:momentum=nan", "at least 0 and below 1, not nan"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_refused_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        parse_outer(text)
    assert "\n" not in str(caught.value)


def test_every_outer_knows_its_name() -> None:
    assert {name: factory().name for name, factory in OUTERS.items()} == {name: name for name in OUTERS}
