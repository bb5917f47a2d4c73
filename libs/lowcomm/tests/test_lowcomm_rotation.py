"""A round for a fragment: the same mathematics as whole models, fragment by fragment."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.lowcomm import overlap
from windfall.lowcomm.fragments import CHUNK, Fragments
from windfall.lowcomm.layout import Split, digest
from windfall.lowcomm.outerlog import Accepted, Diverged, merged_form, read, replay, smallest
from windfall.lowcomm.rotation import Rotation
from windfall.lowcomm.rule import Rule, Said

MODEL = Split(3 * CHUNK + 500, 7, (3000, 2 * CHUNK, CHUNK + 500 - 3000))
RULES = {
    "topk-ef": Rule.parse("topk-ef"),
    "bf16": Rule.parse("bf16"),
    "nesterov": Rule.parse("int8-block", "nesterov:lr=0.7,momentum=0.6"),
    "counted": Rule.parse("fp32", "delayed-nesterov:arrivals=2"),
    "median": Rule.parse("fp32", "average", merge="median"),
    "rda": Rule.parse("bf16", "average", clip=True, merge="rda"),
}


def noise(seed: int) -> torch.Tensor:
    return torch.randn(MODEL.elements, generator=torch.Generator().manual_seed(seed))


def test_the_schedule_is_that_of_fragments_with_a_round_for_a_step() -> None:
    for count in (1, 2, 3, 4):
        turns, plan = Rotation(MODEL, count), Fragments(MODEL, count, count, 1)
        for number in range(3 * count):
            assert turns.turn(number) == plan.told(number + 1)
            assert turns.part(number) == plan.parts[turns.turn(number)]
            assert turns.split(number).elements == plan.splits[turns.turn(number)].elements
        assert turns.most_elements == max(split.elements for split in plan.splits)


@pytest.mark.parametrize("name", RULES)
def test_fragments_over_their_rounds_are_the_reference_schedule(name: str) -> None:
    """Against every fragment kept as a vector of its own: messages, outer state, error feedback, log."""
    rule, turns, sites, rounds = RULES[name], Rotation(MODEL, 3), 3, 9
    plan = Fragments(MODEL, 3, 3, 1)
    start = noise(0)
    alone = [[overlap.begin(start[part].clone()) for part in plan.parts] for _ in range(sites)]
    outer = [rule.init(split) for split in plan.splits]
    unsent = [[rule.codec.init(split.trained) for split in plan.splits] for _ in range(sites)]

    states, base, log = turns.init(rule.outer), start, b""
    kept = [[rule.codec.init(turns.split(turn).trained) for turn in range(3)] for _ in range(sites)]
    local = [start.clone() for _ in range(sites)]
    for number in range(rounds):
        due = plan.told(number + 1)
        assert due is not None
        reference, said, messages = [], [], []
        for site in range(sites):
            trained = noise(1 + number * sites + site) * 0.01
            local[site] = local[site] + trained
            told = dict(base=number, tokens=site + 1, steps=1)
            alone[site] = [
                overlap.trained(state, state.local + trained[part])
                for state, part in zip(alone[site], plan.parts, strict=True)
            ]
            alone[site][due], gradient = overlap.tell(alone[site][due])
            unsent[site][due], expected = rule.encode(unsent[site][due], gradient, plan.splits[due], **told)
            part, split = turns.part(number), turns.split(number)
            kept[site][due], message = rule.encode(kept[site][due], base[part] - local[site][part], split, **told)
            assert message == expected
            assert len(message) <= rule.most_bytes(split) < rule.most_bytes(MODEL)
            _, parts = rule.decode(message, split)
            said.append(Said(str(site), 1, site + 1, parts))
            reference.append(Said(str(site), 1, site + 1, rule.decode(expected, plan.splits[due])[1]))
            messages.append(Accepted.of(str(site), 1, site + 1, message))
        outer[due], new = rule.step(
            outer[due], alone[0][due].base, rule.merge(reference, plan.splits[due]), plan.splits[due]
        )
        merged = rule.merge(said, turns.split(number))
        before = base
        states, base = turns.step(rule, states, base, merged, number)
        form = merged_form(merged, turns.split(number)) if number % 2 else None
        log += smallest(number, digest(before), digest(base), messages, form)
        for site in range(sites):
            alone[site][due] = overlap.apply(alone[site][due], new)
            told_part = (turns.part(number), local[site][turns.part(number)].clone())
            local[site] = overlap.go_over(local[site], before, base, told_part)
            assert torch.equal(local[site], torch.cat([one.local for one in alone[site]]))
        assert torch.equal(base, torch.cat([one.base for one in alone[0]]))
    for slot in range(rule.outer.slots):
        assert torch.equal(states[slot], torch.cat([one[slot] for one in outer]))
    for slot in range(rule.outer.slots, len(states)):
        assert torch.equal(states[slot], torch.cat([one[slot] for one in outer]))
    replayed = replay(rule, turns, turns.init(rule.outer), start, read(log, turns))
    assert torch.equal(replayed[1], base)
    assert all(torch.equal(one, other) for one, other in zip(replayed[0], states, strict=True))
    with pytest.raises((ValueError, Diverged)):
        replay(rule, Rotation(MODEL, 2), Rotation(MODEL, 2).init(rule.outer), start, read(log, Rotation(MODEL, 2)))


def test_no_more_fragments_than_chunks() -> None:
    assert Rotation(MODEL, 4).count == 4
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"12788 elements make 1 to 4 fragments, not {count}"):
            Rotation(MODEL, count)


@settings(deadline=None)
@given(seed=st.integers(0, 1000), turn=st.integers(0, 2), counted=st.booleans(), rounds=st.integers(0, 4))
def test_going_over_to_a_base_loses_no_progress(seed: int, turn: int, counted: bool, rounds: int) -> None:
    """Whole numbers, so that sums are exact: what is to be told later is what was trained, less what counts."""
    turns = Rotation(MODEL, 3)
    dice = torch.Generator().manual_seed(seed)
    old, local, later = (torch.randint(-9, 9, (MODEL.elements,), generator=dice).float() for _ in range(3))
    part, new = turns.part(turn), old.clone()
    for other in range(rounds):
        new[turns.part(turn + other)] += 1
    after = overlap.go_over(local + later, old, new, (part, local[part]) if counted else None)
    expected = old - local - later
    if counted:
        expected[part] = -later[part]
    assert torch.equal(new - after, expected)
    untouched = new == old
    if counted:
        untouched[part] = False
    assert torch.equal(after[untouched], (local + later)[untouched])
