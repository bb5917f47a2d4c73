import struct
import tracemalloc
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.lowcomm import outer as outers
from windfall.lowcomm.layout import Split, digest
from windfall.lowcomm.outerlog import (
    Accepted,
    Diverged,
    Entry,
    merged_form,
    read,
    replay,
    smallest,
    worth_replaying,
    write_entry,
)
from windfall.lowcomm.rule import Rule, Said
from windfall.lowcomm.sparse import Sparse

GOLDEN = Path(__file__).parent / "golden"
SPLIT = Split(5000, 7)
RULES = [
    Rule.parse("fp32"),
    Rule.parse("bf16", "nesterov:lr=0.7,momentum=0.9"),
    Rule.parse("int4-block", clip=True),
    Rule.parse("int8-block", "delayed-nesterov:arrivals=2"),
    Rule.parse("q2-ef", merge="rda"),
    Rule.parse("topk-ef"),
    Rule.parse("topk-ef:levels=1", clip=True),
    Rule.parse("dct-momentum"),
]
by_codec = pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(map(str, rule.settings)))


def vector(seed: int, elements: int = SPLIT.elements) -> torch.Tensor:
    """Long-tailed numbers without a random generator, so that they are the same for ever."""
    index = np.arange(elements, dtype=np.int64) + 7919 * (seed + 1)
    mixed = (index * index * 65537 + index * 40503) % 1000003 - 500001
    return torch.from_numpy((mixed / 500001.0) ** 5).float()


@dataclass(frozen=True)
class Round:
    """What a coordinator holds of a round that it has committed."""

    number: int
    base: str
    model: str
    contributions: tuple[Accepted, ...]
    merged: bytes

    def entry(self, form: str) -> bytes:
        return write_entry(
            self.number, self.base, self.model, self.contributions, self.merged if form == "merged" else None
        )


@cache
def history(
    rule: Rule, rounds: int, split: Split = SPLIT
) -> tuple[tuple[outers.State, torch.Tensor], list[Round], tuple[outers.State, torch.Tensor]]:
    """Where a federation of three began, its rounds, and where the coordinator stands."""
    base, state = vector(0, split.elements), rule.init(split)
    start, feedback, past = (state, base), {name: rule.codec.init(split.trained) for name in "abc"}, []
    for number in range(rounds):
        accepted, said = [], []
        for index, name in enumerate("abc"):
            gradient = vector(10 * number + index, split.elements)
            feedback[name], message = rule.encode(
                feedback[name], gradient, split, base=number, tokens=100 + index, steps=5
            )
            tokens = (100 + index) * 0.6**index  # a fraction, as staleness leaves it
            accepted.append(Accepted.of(f"site-{name}", index, tokens, message))
            said.append(Said(f"site-{name}", index, tokens, rule.decode(message, split)[1]))
        merged = rule.merge(said, split)
        before = digest(base)
        state, base = rule.step(state, base, merged, split)
        past.append(Round(number, before, digest(base), tuple(accepted), merged_form(merged, split)))
    return start, past, (state, base)


def same(left: tuple[outers.State, torch.Tensor], right: tuple[outers.State, torch.Tensor]) -> bool:
    return digest(left[1]) == digest(right[1]) and [*map(digest, left[0])] == [*map(digest, right[0])]


@by_codec
@pytest.mark.parametrize("forms", [("messages",) * 3, ("merged",) * 3, ("merged", "messages", "merged")])
def test_a_replay_gives_the_coordinators_bits(rule: Rule, forms: tuple[str, ...]) -> None:
    start, rounds, end = history(rule, 3)
    log = b"".join(each.entry(form) for each, form in zip(rounds, forms, strict=True))
    assert same(replay(rule, SPLIT, *start, read(log, SPLIT)), end)
    assert digest(start[1]) == rounds[0].base  # nothing was changed in place


@by_codec
def test_a_site_need_not_hear_itself(rule: Rule) -> None:
    start, rounds, end = history(rule, 2)
    own = {one.sha256: one.message for each in rounds for one in each.contributions[1:2] if one.message is not None}
    log = b"".join(smallest(one.number, one.base, one.model, one.contributions, held=own) for one in rounds)
    assert len(log) == sum(len(each.entry("messages")) - each.contributions[1].nbytes for each in rounds)
    assert same(replay(rule, SPLIT, *start, read(log, SPLIT), own), end)
    with pytest.raises(Diverged, match="site-b's message, not held here; fetch in full"):
        replay(rule, SPLIT, *start, read(log, SPLIT))
    with pytest.raises(ValueError, match="site-b's message in round 0 does not have the SHA-256"):
        replay(rule, SPLIT, *start, read(log, SPLIT), dict.fromkeys(own, b"something else"))


@pytest.mark.parametrize(("codec", "form"), [("fp32", "merged"), ("topk-ef", "messages")])
def test_the_smallest_form_is_chosen(codec: str, form: str) -> None:
    _, (one,), _ = history(Rule.parse(codec), 1, Split(100_000))
    found = smallest(one.number, one.base, one.model, one.contributions, one.merged)
    assert found == one.entry(form)
    # Whoever holds two of the three messages needs one, which is smaller than what the three say together.
    held = {each.sha256 for each in one.contributions[:2]}
    assert len(smallest(0, one.base, one.model, one.contributions, one.merged, held)) <= len(found)
    without = [replace(each, message=None) for each in one.contributions]
    assert smallest(0, one.base, one.model, without, one.merged) == one.entry("merged")
    with pytest.raises(ValueError, match="message of site-a is neither here nor with the receiver"):
        smallest(0, one.base, one.model, without)


def test_a_log_is_replayed_while_it_is_shorter() -> None:
    assert worth_replaying(10, 11) and not worth_replaying(11, 11)


def test_divergence_is_found_at_its_round() -> None:
    rule = Rule.parse("topk-ef")
    (state, base), rounds, _ = history(rule, 3)
    log = b"".join(each.entry("messages") for each in rounds)
    entries = [*read(log, SPLIT)]
    other = base.clone()
    other[3] = torch.nextafter(other[3], torch.tensor(9.0))
    with pytest.raises(Diverged, match=r"^round 0 gives [0-9a-f]{12} here and [0-9a-f]{12} there; fetch in full$"):
        replay(rule, SPLIT, state, other, entries)
    with pytest.raises(Diverged, match="round 2 starts from"):
        replay(rule, SPLIT, state, base, [entries[0], entries[2]])
    with pytest.raises(Diverged, match="round 0 gives"):
        replay(replace(rule, outer=outers.average(0.5)), SPLIT, state, base, entries)
    with pytest.raises(ValueError, match="part 0 is topk-ef"):
        replay(Rule.parse("q2-ef"), SPLIT, state, base, entries)


def test_an_entry_byte_by_byte() -> None:
    base, model = "11" * 32, "22" * 32
    contributions = [Accepted.of("bé", 2, 1.5, b"xyz"), Accepted.of("a", 1, 2.0, b"uv")]
    data = write_entry(9, base, model, [contributions[0], replace(contributions[1], message=None)])
    listed = (
        b"\1\0\1\0\0\0" + struct.pack("<d", 2) + sha256(b"uv").digest() + b"\2\0\0\0a"
        b"\3\1\2\0\0\0" + struct.pack("<d", 1.5) + sha256(b"xyz").digest() + b"\3\0\0\0b\xc3\xa9"
    )
    fixed = b"WFOL\1\0\2\0" + struct.pack("<Q", 9) + b"\x11" * 32 + b"\x22" * 32 + struct.pack("<I", len(listed))
    assert data == fixed + struct.pack("<I", zlib.crc32(fixed + listed)) + listed + b"xyz"

    part = Sparse(4, np.array([1, 3]), np.array([1.0, -2.0], np.float32), dct=True)
    section = merged_form([part, torch.tensor([3.0])], Split(4, 1))
    stored = [struct.pack("<I", 2**31 | 2) + body for body in (b"\1\1", b"\x3f\xc0", b"\x80\0", b"\0\0", b"\0\0")]
    assert section == b"\2" + struct.pack("<QQI", 4, 2, 2) + b"".join(stored) + b"\0" + struct.pack("<Qf", 1, 3.0)
    merged = write_entry(9, base, model, contributions, section)
    assert merged[5] == 1 and merged.endswith(struct.pack("<Q", len(section)) + sha256(section).digest() + section)


WRONG = {
    "no contribution": ([], "1 to 65535 contributions, not 0"),
    "twice": ([Accepted.of("a", 1, 1, b""), Accepted.of("a", 1, 1, b"")], "a, attempt 1 is listed twice"),
    "no digest": ([Accepted("a", 1, 1, "00", 0, None)], "64 hexadecimal digits, not 2"),
    "another length": ([Accepted("a", 1, 1, "00" * 32, 2, b"")], "has 0 bytes, not 2"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_round_is_not_written(wrong: str) -> None:
    contributions, why = WRONG[wrong]
    with pytest.raises(ValueError, match=why):
        write_entry(0, "00" * 32, "00" * 32, contributions)


@pytest.mark.parametrize("site", ["", "é" * 32, "a\nb"])
def test_a_name_is_short_and_printable(site: str) -> None:
    with pytest.raises(ValueError, match="a site's name"):
        Accepted.of(site, 0, 1, b"")


@pytest.mark.parametrize("tokens", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_is_positive_and_finite(tokens: float) -> None:
    with pytest.raises(ValueError, match="a weight is"):
        Accepted.of("a", 0, tokens, b"")
    with pytest.raises(ValueError, match="do not fit"):
        Accepted.of("a", 2**32, 1, b"")


def sealed(entry: bytes) -> bytes:
    """With the checksum of its list and the digest of its merged form made right, as one who means harm would."""
    if len(entry) < 88:
        return entry
    size = min(struct.unpack("<I", entry[80:84])[0], len(entry) - 88)
    listed, rest = entry[88 : 88 + size], entry[88 + size :]
    if entry[5] == 1 and len(rest) >= 40:
        rest = struct.pack("<Q", len(rest) - 40) + sha256(rest[40:]).digest() + rest[40:]
    fixed = entry[:80] + struct.pack("<I", size)
    return fixed + struct.pack("<I", zlib.crc32(listed, zlib.crc32(fixed))) + listed + rest


@pytest.mark.parametrize(
    ("at", "new", "why"),
    [
        (0, b"X", "begins with"),
        (4, b"\2", "version 2, form 0"),
        (5, b"\2", "version 1, form 2"),
        (6, b"\0\0", "1 to 65535 contributions, not 0|follow the list"),
        (6, b"\4", "cut short"),
        (80, b"\1\0\0\0", "cut short"),
        (88, b"\xff", "UTF-8|utf-8|cut short|a site's name|a message follows"),
        (89, b"\2", "a message follows"),
        (94, b"\xff" * 8, "a weight is"),
        (134, b"\xff" * 4, "cut short"),
        (138, b"t", "out of order"),
        (138, b"\n", "printable"),
        (138, b"\xff", "invalid start byte"),
    ],
)
def test_a_wrong_field_is_refused(at: int, new: bytes, why: str) -> None:
    _, (one,), _ = history(Rule.parse("topk-ef"), 1)
    data = one.entry("messages")
    with pytest.raises(ValueError, match=why):
        [*read(sealed(data[:at] + new + data[at + len(new) :]), SPLIT)]


@pytest.mark.parametrize("form", ["messages", "merged"])
def test_an_accident_is_found_wherever_it_happens(form: str) -> None:
    rule = Rule.parse("topk-ef")
    start, (one,), _ = history(rule, 1)
    data = one.entry(form)
    for at in range(0, len(data), 11):
        with pytest.raises(ValueError):
            replay(rule, SPLIT, *start, read(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :], SPLIT))
        if at:
            with pytest.raises(ValueError, match=r"cut short|SHA-256"):
                replay(rule, SPLIT, *start, read(data[:at], SPLIT))
    with pytest.raises(ValueError, match="stands behind round 0"):
        replay(rule, SPLIT, *start, read(data + data, SPLIT))


@pytest.mark.parametrize("codec", ["fp32", "int4-block", "topk-ef", "dct-momentum"])
@pytest.mark.parametrize("form", ["messages", "merged"])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_mutated_log_is_refused_or_diverges(codec: str, form: str, data: st.DataObject) -> None:
    rule, split = Rule.parse(codec), Split(300, 3)
    start, rounds, _ = history(rule, 2, split)
    mutated = bytearray(rounds[0].entry(form))
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        at = data.draw(st.integers(0, len(mutated) - 1) | st.integers(0, min(300, len(mutated) - 1)))
        if kind == "flip":
            mutated[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del mutated[max(at, 1) : at + data.draw(st.integers(1, 20))]
        else:
            mutated[at:at] = data.draw(st.binary(min_size=1, max_size=20))
    survives(rule, split, start, sealed(bytes(mutated)) + rounds[1].entry(form))


@settings(deadline=None, max_examples=200)
@given(section=st.binary(max_size=200), kind=st.integers(0, 2), elements=st.integers(0, 300))
def test_random_merged_forms_are_refused_or_diverge(section: bytes, kind: int, elements: int) -> None:
    split, rule = Split(elements), Rule.parse("topk-ef")
    entry = write_entry(
        0, "00" * 32, "00" * 32, [Accepted.of("a", 0, 1, b"")], bytes([kind]) + struct.pack("<Q", elements) + section
    )
    survives(rule, split, ((), torch.zeros(elements)), entry)


def survives(rule: Rule, split: Split, start: tuple[outers.State, torch.Tensor], log: bytes) -> None:
    """It is refused with one line, or gives exactly the models that it names."""
    entries: Sequence[Entry] = []
    try:
        entries = [*read(log, split)]
        _, model = replay(rule, split, *start, entries)
    except ValueError as refusal:
        assert "\n" not in str(refusal)
        return
    assert not entries or digest(model) == entries[-1].model


def test_a_bomb_is_refused_before_it_grows() -> None:
    """A merged form that announces far more coordinates than it has bytes for."""
    split = Split(2**31)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(2**24)) + packer.flush()
    squeezed = struct.pack("<I", len(packed)) + packed
    announced = [(2**24, 2**24), (2**30, 2**30), (1, 2**22), (2**31, 2**32 - 1)]
    for count, gaps in announced:
        section = b"\1" + struct.pack("<QQI", 2**31, count, gaps) + squeezed
        entry = write_entry(0, "00" * 32, "00" * 32, [Accepted.of("a", 0, 1, b"")], section)
        tracemalloc.start()
        with pytest.raises(ValueError):
            [*read(entry, split)]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20


def test_memory_is_bounded_by_the_model_not_by_the_sites() -> None:
    split, rule = Split(1 << 20), Rule.parse("int4-block")
    _, message = rule.encode((), vector(1, split.elements), split, base=0, tokens=1, steps=1)
    contributions = [Accepted.of(f"site-{index:02}", 0, 1.0 + index, message) for index in range(16)]
    log = write_entry(0, "00" * 32, "00" * 32, contributions)
    tracemalloc.start()  # numpy tells it of its arrays; what torch allocates is not seen here
    with pytest.raises(Diverged):
        replay(rule, split, rule.init(split), torch.zeros(split.elements), read(log, split))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * split.elements * 4


def test_a_golden_log_is_read_for_ever() -> None:
    """The files are never written again: another format gets another version and other files."""
    rule, own = Rule.parse("topk-ef"), (GOLDEN / "outerlog-own.wflc").read_bytes()
    entries = [*read((GOLDEN / "outerlog.wfol").read_bytes(), SPLIT)]
    assert [(entry.round, entry.merged is None) for entry in entries] == [(0, True), (1, False)]
    for entry in entries:
        assert [one.order for one in entry.contributions] == [("site-a", 0), ("site-b", 1), ("site-c", 2)]
        assert [one.tokens for one in entry.contributions] == [100.0, 101 * 0.6, 102 * 0.6**2]
    assert entries[0].contributions[2].message is None
    _, model = replay(rule, SPLIT, (), vector(0), entries, {sha256(own).hexdigest(): own})
    assert digest(model) == "bf3139bc21aebd26f4119fb80052f432c7b88bdd5e696e131d37aef942164e84"
