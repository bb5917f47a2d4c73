from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.lowcomm import overlap
from windfall.lowcomm.fragments import CHUNK, Fragments
from windfall.lowcomm.layout import Split, digest
from windfall.lowcomm.rule import Rule, Said

AVERAGE = Rule.parse("fp32", "average")


def whole(seed: int, elements: int) -> torch.Tensor:
    """Small whole numbers: sums of them are exact, so that what is lost or counted twice shows."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-64, 65, (elements,), generator=generator).float()


def merged(base: torch.Tensor, gradients: list[torch.Tensor]) -> torch.Tensor:
    said = [Said(f"{index}", 0, 1.0, (gradient,)) for index, gradient in enumerate(gradients)]
    split = Split(len(base))
    return AVERAGE.step((), base, AVERAGE.merge(said, split), split)[1]


def test_the_equations() -> None:
    base, first, second, new = (whole(seed, 9) for seed in range(4))
    state = overlap.trained(overlap.begin(base), base + first)
    state, gradient = overlap.tell(state)
    assert torch.equal(gradient, -first)
    state = overlap.trained(state, state.local + second)
    counted = overlap.apply(state, new)
    assert torch.equal(counted.local, new + second) and torch.equal(counted.gradient, -second)
    passed_over = overlap.apply(state, new, counted=False)
    assert torch.equal(passed_over.local, new + first + second)
    assert torch.equal(passed_over.gradient, -first - second)
    undecided = overlap.follow(state, new)
    assert torch.equal(undecided.local, passed_over.local) and undecided.base is new
    late = overlap.apply(undecided, new + 1)
    assert torch.equal(late.local, new + 1 + second)
    for each in (counted, passed_over, late):
        assert each.said is None


@settings(deadline=None)
@given(values=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=3, max_size=3))
def test_who_did_not_train_meanwhile_stands_on_the_global_model(values: list[float]) -> None:
    base, local, new = (torch.tensor([value]) for value in values)
    state, _ = overlap.tell(overlap.trained(overlap.begin(base), local))
    assert digest(overlap.apply(state, new).local + 0) == digest(new + 0)
    assert digest(overlap.apply(overlap.begin(base), new, counted=False).local + 0) == digest(new + 0)


def test_nothing_is_told_or_counted_twice() -> None:
    state = overlap.begin(torch.zeros(3))
    with pytest.raises(ValueError, match="nothing was told"):
        overlap.apply(state, torch.ones(3))
    state, _ = overlap.tell(state)
    with pytest.raises(ValueError, match="still on its way"):
        overlap.tell(state)
    for wrong in (torch.zeros(2), torch.zeros(3, dtype=torch.float64)):
        with pytest.raises(ValueError, match="expected"):
            overlap.trained(state, wrong)
        with pytest.raises(ValueError, match="expected"):
            overlap.apply(state, wrong)


@settings(deadline=None)
@given(
    words=st.lists(st.sampled_from(["train", "tell", "count", "refuse", "wait"]), max_size=40),
    seed=st.integers(100, 2**32),
)
def test_every_step_is_counted_once_or_still_to_be_told(words: list[str], seed: int) -> None:
    """The global model is the sum of what others did and of what of this site's progress was counted."""
    state, progress, flying = overlap.begin(whole(seed, 5)), torch.zeros(5), torch.zeros(5)
    start = state.base.clone()
    for index, word in enumerate(words):
        if word == "train":
            steps = whole(seed + index + 1, 5)
            state, progress = overlap.trained(state, state.local + steps), progress + steps
        elif word == "tell" and state.said is None:
            state, flying = overlap.tell(state)
        elif word == "count" and state.said is not None:
            state = overlap.apply(state, state.base - flying)
        elif word in ("refuse", "wait"):  # somebody else moved the global model
            other = whole(seed - index - 1, 5)
            moved = state.base + other
            state = overlap.follow(state, moved) if word == "wait" else overlap.apply(state, moved, counted=False)
            start = start + other
        assert torch.equal(state.local, start + progress)
    if state.said is not None:
        state = overlap.apply(state, state.base - flying)
    state, last = overlap.tell(state)
    assert torch.equal(state.base - last, start + progress)


@settings(deadline=None, max_examples=25)
@given(
    sites=st.integers(1, 4),
    count=st.integers(1, 3),
    steps=st.integers(3, 8),
    delay=st.integers(1, 8),
    tail=st.integers(0, 5),
    seed=st.integers(0, 1000),
)
def test_global_replicas_are_one_while_locals_differ(
    sites: int, count: int, steps: int, delay: int, tail: int, seed: int
) -> None:
    """Streaming in fragments with updates in flight. Everybody contributes; sites are a power of two, so means of
    whole numbers are exact, and the global model is the sum of the means of all progress that was told."""
    sites = 1 << (sites // 2)
    model = Split(2 * CHUNK + 1000, tail)
    plan = Fragments(model, count, steps, min(delay, steps))
    start = whole(seed, model.elements)
    states = [[overlap.begin(start[part]) for part in plan.parts] for _ in range(sites)]
    progress = torch.zeros(model.elements, dtype=torch.float64)
    flying: dict[int, torch.Tensor] = {}
    for step in range(1, 3 * steps + 1):
        for site in range(sites):
            moved = whole(seed + 1000 * step + site, model.elements)
            progress += moved.double() / sites
            states[site] = [
                overlap.trained(state, state.local + moved[part])
                for state, part in zip(states[site], plan.parts, strict=True)
            ]
        if (arrived := plan.applied(step)) is not None:
            new = flying.pop(arrived)
            for own in states:
                own[arrived] = overlap.apply(own[arrived], new)
        if (due := plan.told(step)) is not None:
            gradients = []
            for own in states:
                own[due], gradient = overlap.tell(own[due])
                gradients.append(gradient)
            flying[due] = merged(states[0][due].base, gradients)
        for index in range(count):
            assert len({digest(own[index].base) for own in states}) == 1
    if sites > 1:
        assert len({digest(torch.cat([each.local for each in own])) for own in states}) == sites
    for index, new in flying.items():
        for own in states:
            own[index] = overlap.apply(own[index], new)
    for index, part in enumerate(plan.parts):
        gradients = [overlap.tell(own[index])[1] for own in states]
        end = merged(states[0][index].base, gradients)
        assert torch.equal(end.double(), start[part].double() + progress[part])


@settings(deadline=None)
@given(
    trained=st.integers(0, 50 * CHUNK),
    exact=st.integers(0, 9),
    count=st.integers(1, 60),
    steps=st.integers(1, 60),
    data=st.data(),
)
def test_fragments_are_the_model_end_to_end(
    trained: int, exact: int, count: int, steps: int, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, trained))
    model, chunks = Split(trained, exact, (cut, trained - cut)), max(1, -(-trained // CHUNK))
    if count > min(steps, chunks):
        with pytest.raises(ValueError, match="fragments, not"):
            Fragments(model, count, steps, 1)
        return
    delay = data.draw(st.integers(1, steps))
    plan = Fragments(model, count, steps, delay)
    assert [part.start for part in plan.parts] == [0, *(part.stop for part in plan.parts)][:-1]
    assert plan.parts[-1].stop == model.elements
    assert all(part.start % CHUNK == 0 for part in plan.parts)
    assert [part.stop - part.start for part in plan.parts] == [split.elements for split in plan.splits]
    assert sum(split.trained for split in plan.splits) == trained
    assert [split.exact for split in plan.splits] == [0] * (count - 1) + [exact]
    if count > 1:
        lengths = [split.trained for split in plan.splits]
        assert max(lengths) - min(lengths) < 2 * CHUNK

    told = [plan.told(step) for step in range(1, steps + 1)]
    assert [each for each in told if each is not None] == list(range(count))  # each once, in order
    gaps = [step for step, each in enumerate(told) if each is not None]
    assert all(steps // count <= b - a <= steps // count + 1 for a, b in pairwise(gaps))
    assert [plan.told(step + steps) for step in range(1, steps + 1)] == told
    assert [plan.applied(step + delay) for step in range(1, steps + 1)] == told
    assert not any(plan.applied(step) is not None for step in range(1, delay + 1))


@pytest.mark.parametrize("delay", [0, 31])
def test_an_update_arrives_before_the_next_is_told(delay: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 30 steps later, not {delay}"):
        Fragments(Split(CHUNK), 1, 30, delay)
