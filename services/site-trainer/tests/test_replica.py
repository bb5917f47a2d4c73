"""The base that a site holds: downloaded, followed along the outer log, written down and read again."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from windfall.lowcomm.layout import digest
from windfall.lowcomm.outerlog import Accepted, Diverged, write_entry
from windfall.lowcomm.rule import Rule, Said, Split
from windfall.site_trainer.replica import Replica, follow, keep, kept, of_snapshot, snapshot_bytes

ELEMENTS = Split(5000, 7)
RULES = {
    "fp32": Rule.parse("fp32"),
    "topk-ef": Rule.parse("topk-ef"),
    "dct-momentum": Rule.parse("dct-momentum"),
    "q2-ef": Rule.parse("q2-ef"),
    "int4-block": Rule.parse("int4-block"),
    "int8-block, delayed": Rule.parse("int8-block", "delayed-nesterov:arrivals=2"),
}
FOLLOWED = {name: rule for name, rule in RULES.items() if rule.followed}


def noise(seed: int) -> Tensor:
    return torch.randn(ELEMENTS.elements, generator=torch.Generator().manual_seed(seed))


def snapshot(rule: Rule) -> memoryview:
    """A full download: the model, and the outer optimizer's state behind it where the rule is followed."""
    states = tuple(noise(9)[:size].abs().ceil() for size in rule.outer.sizes(ELEMENTS.trained)) if rule.followed else ()
    return memoryview(bytearray(torch.cat((noise(0), *states)).numpy().tobytes()))


def held(rule: Rule) -> Replica:
    return of_snapshot(snapshot(rule), digest(noise(0)), rule, ELEMENTS)


def play(rule: Rule, rounds: int) -> tuple[Replica, bytes, list[bytes]]:
    """What the coordinator has after so many rounds of two sites, the log that leads there, and site-a's messages."""
    replica, log, own = held(rule), b"", []
    for number in range(rounds):
        messages = [
            rule.encode(
                rule.codec.init(ELEMENTS.trained), noise(10 * number + one), ELEMENTS, base=number, tokens=5, steps=1
            )[1]
            for one in (1, 2)
        ]
        said = [
            Said(site, 1, 5, rule.decode(message, ELEMENTS)[1])
            for site, message in zip(("site-a", "site-b"), messages, strict=True)
        ]
        states, base = rule.step(replica.states, replica.base, rule.merge(said, ELEMENTS), ELEMENTS)
        accepted = [
            Accepted.of(site, 1, 5, message) for site, message in zip(("site-a", "site-b"), messages, strict=True)
        ]
        log += write_entry(number, replica.digest, digest(base), accepted)
        replica = Replica(digest(base), base, states)
        own.append(messages[0])
    return replica, log, own


def same(one: Replica, other: Replica) -> bool:
    vectors = zip((one.base, *one.states), (other.base, *other.states), strict=True)
    return one.digest == other.digest and all(torch.equal(a, b) for a, b in vectors)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_full_download_is_the_model_and_what_belongs_to_it(rule: Rule) -> None:
    data = snapshot(rule)
    assert len(data) == snapshot_bytes(rule, ELEMENTS)
    replica = of_snapshot(data, digest(noise(0)), rule, ELEMENTS)
    assert digest(replica.base) == replica.digest
    assert tuple(map(len, replica.states)) == (rule.outer.sizes(ELEMENTS.trained) if rule.followed else ())


@pytest.mark.parametrize("rule", FOLLOWED.values(), ids=FOLLOWED)
@pytest.mark.parametrize("rounds", [1, 4])
def test_followed_it_is_what_the_coordinator_has(rounds: int, rule: Rule) -> None:
    start = held(rule)
    before = start.base.clone()
    expected, log, _ = play(rule, rounds)
    assert same(follow(start, log, expected.digest, rule, ELEMENTS, {}), expected)
    # An engine may still train from it.
    assert torch.equal(start.base, before)


def test_its_own_last_message_is_not_sent_back_to_it() -> None:
    rule = RULES["topk-ef"]
    expected, _, (own,) = play(rule, 1)
    theirs = rule.encode(rule.codec.init(ELEMENTS.trained), noise(2), ELEMENTS, base=0, tokens=5, steps=1)[1]
    accepted = [
        Accepted("site-a", 1, 5, hashlib.sha256(own).hexdigest(), len(own), None),
        Accepted.of("site-b", 1, 5, theirs),
    ]
    log = write_entry(0, held(rule).digest, expected.digest, accepted)
    found = follow(held(rule), log, expected.digest, rule, ELEMENTS, {hashlib.sha256(own).hexdigest(): own})
    assert same(found, expected)
    with pytest.raises(Diverged, match="not held here"):
        follow(held(rule), log, expected.digest, rule, ELEMENTS, {})


WRONG: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda log: b"",
    "cut short": lambda log: log[:-1],
    "followed by more": lambda log: log + b"\0",
    "a bit of a message": lambda log: log[:-9] + bytes([log[-9] ^ 4]) + log[-8:],
    "a bit of a digest": lambda log: log[:20] + bytes([log[20] ^ 4]) + log[21:],
    "one round too few": lambda log: log[: len(play(RULES["int4-block"], 1)[1])],
    "its first round is missing": lambda log: log[len(play(RULES["int4-block"], 1)[1]) :],
}


@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG)
def test_a_log_that_does_not_lead_there_is_not_followed(spoil: Callable[[bytes], bytes]) -> None:
    rule = RULES["int4-block"]
    expected, log, _ = play(rule, 2)
    with pytest.raises(ValueError):
        follow(held(rule), spoil(log), expected.digest, rule, ELEMENTS, {})


def test_another_momentum_than_the_coordinators_is_found_at_the_first_round() -> None:
    rule = RULES["int4-block"]
    expected, log, _ = play(rule, 3)
    start = held(rule)
    drifted = Replica(start.digest, start.base, tuple(state + 1e-3 for state in start.states))
    with pytest.raises(Diverged, match="round 0"):
        follow(drifted, log, expected.digest, rule, ELEMENTS, {})


# --- written down for the site's next trainer -------------------------------------------------------------------------


@pytest.mark.parametrize("rule", FOLLOWED.values(), ids=FOLLOWED)
def test_written_down_and_read_again_it_is_the_same(rule: Rule, tmp_path: Path) -> None:
    path = tmp_path / "base.safetensors"
    for replica in (held(rule), play(rule, 1)[0]):
        keep(replica, rule, path)
        found = kept(path, rule, ELEMENTS)
        assert found is not None
        assert same(found, replica)
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_written_down_is_nothing_held(tmp_path: Path) -> None:
    assert kept(tmp_path / "base.safetensors", RULES["topk-ef"], ELEMENTS) is None


def another_base(path: Path) -> None:
    tensors = load_file(path)
    tensors["base"][17] += 1
    rewrite(path, tensors)


def half_a_base(path: Path) -> None:
    rewrite(path, {"base": torch.zeros(10, dtype=torch.float16)})


def other_numbers(path: Path) -> None:
    rewrite(path, load_file(path) | {"base": torch.zeros(ELEMENTS.elements, dtype=torch.float16)})


def no_momentum(path: Path) -> None:
    rewrite(path, {"base": load_file(path)["base"]})


def rewrite(path: Path, tensors: dict[str, Tensor]) -> None:
    about = {"format": "windfall-replica/1", "digest": digest(noise(0)), "rule": repr(RULES["int4-block"].settings)}
    save_file(tensors, path, about)


SPOILED: dict[str, Callable[[Path], object]] = {
    "another base": another_base,
    "another shape": half_a_base,
    "another type": other_numbers,
    "no momentum": no_momentum,
    "no file of this kind": lambda path: path.write_bytes(b"not at all"),
    "an empty file": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "nobody's": lambda path: save_file({"base": noise(0)}, path),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_what_is_damaged_is_not_held(spoil: Callable[[Path], object], tmp_path: Path) -> None:
    rule, path = RULES["int4-block"], tmp_path / "base.safetensors"
    keep(held(rule), rule, path)
    assert kept(path, rule, ELEMENTS) is not None
    spoil(path)
    assert kept(path, rule, ELEMENTS) is None


@pytest.mark.parametrize("other", ["topk-ef:keep=32", "topk-ef:decay=0.5", "q2-ef", "int4-block"])
def test_what_was_held_under_another_rule_is_not_gone_on_from(other: str, tmp_path: Path) -> None:
    path = tmp_path / "base.safetensors"
    keep(held(RULES["topk-ef"]), RULES["topk-ef"], path)
    assert kept(path, Rule.parse(other), ELEMENTS) is None


def test_without_room_the_old_one_stays(tmp_path: Path) -> None:
    rule, path = RULES["topk-ef"], tmp_path / "base.safetensors"
    keep(held(rule), rule, path)
    (tmp_path / "base.safetensors.new").mkdir()
    with pytest.raises(OSError):
        keep(play(rule, 1)[0], rule, path)
    found = kept(path, rule, ELEMENTS)
    assert found is not None
    assert same(found, held(rule))
