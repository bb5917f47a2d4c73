"""The way down: the outer log, so that whoever holds an earlier model takes the coordinator's steps itself.

A log is entries of ``windfall.lowcomm.entry`` end to end. What travels is still compressed, the receiver's own
messages need not come back to it, and a model that differs in one bit is found at the round where it happened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from windfall.lowcomm import outer as outers
from windfall.lowcomm.codec import Buffer
from windfall.lowcomm.entry import MERGED_HEAD, Accepted, Entry, entry_head, read, write_entry
from windfall.lowcomm.layout import Split, digest
from windfall.lowcomm.mergedform import merged_form
from windfall.lowcomm.rotation import Rotation, rotation
from windfall.lowcomm.rule import MEMORYLESS, Rule, Said, Unread
from windfall.lowcomm.sparse import Contribution
from windfall.lowcomm.wire import HEADER_BYTES, head

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Accepted",
    "Diverged",
    "Entry",
    "entry_head",
    "merged_form",
    "read",
    "replay",
    "smallest",
    "worth_replaying",
    "write_entry",
]


class Diverged(ValueError):
    """The log does not lead from what is held here to what the coordinator has: fetch the model in full."""


def smallest(
    number: int,
    base: str,
    model: str,
    contributions: Sequence[Accepted],
    merged: Buffer | None = None,
    held: Container[str] = (),
) -> bytes:
    """The entry for a receiver that holds the messages of these SHA-256: with the other messages, or with the merged
    form when that takes fewer bytes.

    Raises:
        ValueError: as ``write_entry``, or a message is missing that the receiver does not hold.
    """
    told = [replace(one, message=None) if one.sha256 in held else one for one in contributions]
    missing = [one.site for one in told if one.message is None and one.sha256 not in held]
    spoken = sum(one.nbytes for one in told if one.message is not None)
    if merged is not None and (missing or MERGED_HEAD.size + memoryview(merged).nbytes < spoken):
        return write_entry(number, base, model, contributions, merged)
    if missing:
        raise ValueError(f"the message of {missing[0]} is neither here nor with the receiver")
    return write_entry(number, base, model, told)


def replay(
    rule: Rule,
    elements: Split | Rotation,
    state: outers.State,
    base: Tensor,
    entries: Iterable[Entry],
    own: Mapping[str, Buffer] | None = None,
) -> tuple[outers.State, Tensor]:
    """Take the outer step of every entry: the same bits that the coordinator has. One round is decoded at a time.

    Args:
        elements: the model, or the fragments of it that take turns.
        state: the outer optimizer's, as it belongs to ``base``.
        base: fp32 ``[elements]``; it is not changed.
        own: messages that the log may leave out, by their SHA-256 in hexadecimal.

    Returns:
        The outer optimizer's state and the model after the last entry.

    Raises:
        Diverged: an entry starts from another model or gives another one, or leaves out what is not held here.
        ValueError: a message is not what a site says under this rule, or what ``read`` raises.
    """
    held, last, fragments = own or {}, "", rotation(elements)
    for entry in entries:
        if last and entry.base != last:
            raise Diverged(f"round {entry.round} starts from {entry.base[:12]}, not from {last[:12]}; fetch in full")
        merged = entry.merged
        if merged is None:
            merged = _merge(rule, fragments.split(entry.round), entry, held)
        state, base = fragments.step(rule, state, base, merged, entry.round)
        if (last := digest(base)) != entry.model:
            raise Diverged(f"round {entry.round} gives {last[:12]} here and {entry.model[:12]} there; fetch in full")
    return state, base


def worth_replaying(log_bytes: int, full_bytes: int) -> bool:
    """Whether a log is the shorter way to the newest model. ``full_bytes`` counts the outer optimizer's state too
    where a site keeps one."""
    return log_bytes < full_bytes


def _merge(rule: Rule, elements: Split, entry: Entry, own: Mapping[str, Buffer]) -> tuple[Contribution, ...]:
    said = []
    for one in entry.contributions:
        message = one.message if one.message is not None else own.get(one.sha256)
        if message is None:
            raise Diverged(f"round {entry.round} leaves out {one.site}'s message, not held here; fetch in full")
        view = memoryview(message)
        if view.nbytes != one.nbytes or hashlib.sha256(view).hexdigest() != one.sha256:
            raise ValueError(f"{one.site}'s message in round {entry.round} does not have the SHA-256 that the log says")
        # A site that was alone may have said it in another codec than the rule's; the header says in which.
        codec = head(view[:HEADER_BYTES], max_elements=elements.elements)[0].codec if elements.trained else ""
        codec = codec if codec in MEMORYLESS else rule.codec.name
        said.append(Said(one.site, one.attempt, one.tokens, Unread(rule, view, elements, codec), codec))
    return rule.merge(said, elements)
