"""Which messages of a Flower run are out, who is there to answer them, and what follows from it. Pure.

A *batch* is what a strategy pushes at once. Batches are counted, and a message's id follows from the run, its batch and
its destination: a strategy that is run again from the beginning pushes messages of the same ids, and finds them
answered. A batch with a message to train is a round of the fleet.

A node that leaves answers everything that waits for it with an error, at once; one that joins again under a newer lease
before it is missed takes over what waits.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from windfall.contracts.message import Message
from windfall.flower_adapter import said
from windfall.flower_adapter.values import Answer, Exchange, Gone, Member, Sent, Tally, Told

TRAIN: Final = "train"
EVALUATE: Final = "evaluate"
NO_MODEL: Final = hashlib.sha256(b"").hexdigest()
"""Digest where a message to train carries no arrays."""


class Fenced(Exception):
    """The lease is older than one that was seen from this site."""


@dataclass(frozen=True)
class Decision:
    """What follows from an input: words for the bus, and answers to keep and hand to the strategy."""

    say: tuple[Message, ...] = ()
    answers: tuple[Answer, ...] = ()


def node_id_of(federation: str, site: str) -> int:
    """The same for ever for a site of a federation: 62 bits of a SHA-256, above the numbers that Flower reserves."""
    return 1024 + int.from_bytes(hashlib.sha256(f"{federation}/{site}".encode()).digest()[:8], "big") % 2**62


def message_id_of(exchange: Exchange, batch: int, site: str, index: int) -> str:
    """Of the ``index``-th message to a site in a batch."""
    cause = f"{exchange.federation}/{exchange.run_id}/{exchange.generation}/{batch}/{site}/{index}"
    return hashlib.sha256(cause.encode()).hexdigest()


def join(exchange: Exchange, site: str, window_id: UUID, lease_token: int, now: datetime) -> tuple[Exchange, Decision]:
    """Admit a site. What waits for it waits on, under its new membership.

    Raises:
        Fenced: under an older lease than one that was seen.
    """
    if lease_token < exchange.tokens.get(site, 0):
        raise Fenced(f"lease {lease_token} of {site} is older than {exchange.tokens[site]}")
    before = exchange.members.get(site)
    attempt = exchange.attempts.get(site, 0) + 1
    member = Member(site=site, window_id=window_id, lease_token=lease_token, attempt=attempt)
    replaced = () if before is None else (said.left(exchange, before, "replaced", now),)
    exchange = exchange.model_copy(
        update={
            "members": {**exchange.members, site: member},
            "attempts": {**exchange.attempts, site: attempt},
            "tokens": {**exchange.tokens, site: lease_token},
        }
    )
    return exchange, Decision(say=(*replaced, said.joined(exchange, member, now)))


def leave(
    exchange: Exchange, site: str, attempt: int, why: Gone, unavailable: int, now: datetime
) -> tuple[Exchange, Decision]:
    """The site is gone: whatever waits for it is answered with an error. Another membership's end changes nothing.

    Args:
        unavailable: Flower's number for a node that is not there.
    """
    member = exchange.members.get(site)
    if member is None or member.attempt != attempt:
        return exchange, Decision()
    exchange = exchange.model_copy(
        update={"members": {name: one for name, one in exchange.members.items() if name != site}}
    )
    word = said.left(exchange, member, why, now)
    exchange, decision = _all_answered(exchange, site, unavailable, f"{site} is gone: {why}", now)
    return exchange, Decision((word, *decision.say), decision.answers)


def push(exchange: Exchange, sent: tuple[Sent, ...], unavailable: int, now: datetime) -> tuple[Exchange, Decision]:
    """A batch goes out. What is meant for a site that is not up is answered with an error.

    It also says what became of the round before: its model is what this batch carries. A round to which nobody has
    contributed is not over: the same model that is sent once more belongs to it.
    """
    model = next((one.body_sha256 for one in sent if one.body_bytes and one.category in (TRAIN, EVALUATE)), "")
    trains = any(one.category == TRAIN for one in sent)
    say: tuple[Message, ...] = ()
    again = trains and (vain := exchange.training) is not None and not vain.contributors and vain.base_digest == model
    if exchange.training is not None and (model or trains) and not again:
        exchange, say = _completed(exchange, model or exchange.training.base_digest, now)
    up = tuple(one for one in sent if one.site in exchange.members)
    update: dict[str, Any] = {
        "batches": exchange.batches + 1,
        "waiting": {**exchange.waiting, **{one.id: one for one in up}},
        "buffered_bytes": 0,
        "model_digest": model or exchange.model_digest,
    }
    if trains and not again:
        down = sum(one.body_bytes for one in up)
        tally = Tally(round=exchange.rounds, base_digest=model or exchange.model_digest or NO_MODEL, bytes_down=down)
        say += (said.started(exchange, tally, tuple(sorted({one.site for one in up})), now),)
        update |= {"rounds": exchange.rounds + 1, "training": tally}
    elif model and not trains:
        update |= {"evaluation": Tally(round=exchange.rounds, base_digest=model)}
    exchange = exchange.model_copy(update=update)
    missing = tuple(
        Answer(id=one.id, error_code=unavailable, reason=f"{one.site} is not up") for one in sent if one not in up
    )
    return exchange, Decision(say, missing)


def answer(exchange: Exchange, given: Answer, told: Told, now: datetime) -> tuple[Exchange, Decision]:
    """A reply has come and lies on disk. A second one to the same message changes nothing."""
    sent = exchange.waiting.get(given.id)
    if sent is None:
        return exchange, Decision()
    update: dict[str, Any] = {
        "waiting": {name: one for name, one in exchange.waiting.items() if name != given.id},
        "kept_bytes": exchange.kept_bytes + given.body_bytes,
        "buffered_bytes": exchange.buffered_bytes + given.body_bytes,
    }
    counts = given.error_code is None
    say: tuple[Message, ...] = ()
    if counts and sent.category == TRAIN:
        say = (said.accepted(exchange, sent, given, told, now),)
        update["examples_total"] = exchange.examples_total + told.examples
        if exchange.training is not None and exchange.training.round == sent.round:
            update["training"] = said.tallied(exchange.training, sent.site, given, told)
    if counts and sent.category == EVALUATE and exchange.evaluation is not None:
        update["evaluation"] = said.tallied(exchange.evaluation, sent.site, given, told)
    exchange, last = _evaluated(exchange.model_copy(update=update), now)
    return exchange, Decision(say + last, (given,))


def refuse(
    exchange: Exchange, message_id: str, reason: str, detail: str, code: int, now: datetime
) -> tuple[Exchange, Decision]:
    """What came does not pass: the strategy gets an error with the reason, and the fleet hears of it.

    Args:
        code: Flower's number for a reply that cannot be had.
    """
    sent = exchange.waiting.get(message_id)
    if sent is None:
        return exchange, Decision()
    word = said.refused(exchange, sent, reason, detail, now)
    given = Answer(id=message_id, error_code=code, reason=f"the reply of {sent.site} was refused: {detail}")
    exchange, decision = answer(exchange, given, Told(), now)
    return exchange, Decision((word, *decision.say), decision.answers)


def finish(exchange: Exchange, model_digest: str, now: datetime) -> tuple[Exchange, Decision]:
    """The app has ended; nothing waits any more."""
    model = model_digest or exchange.model_digest or NO_MODEL
    exchange, say = _completed(exchange, model, now)
    exchange = exchange.model_copy(update={"finished": True, "waiting": {}, "model_digest": model})
    return exchange, Decision(say=(*say, said.finished(exchange, now)))


def begin_anew(exchange: Exchange) -> Exchange:
    """The run cannot be replayed: it starts again from its first round, and nothing of before is taken for it."""
    fresh = Exchange(federation=exchange.federation, run_id=exchange.run_id)
    return fresh.model_copy(
        update={
            "members": exchange.members,
            "attempts": exchange.attempts,
            "tokens": exchange.tokens,
            "generation": exchange.generation + 1,
        }
    )


def _all_answered(exchange: Exchange, site: str, code: int, reason: str, now: datetime) -> tuple[Exchange, Decision]:
    say: tuple[Message, ...] = ()
    answers: tuple[Answer, ...] = ()
    for sent in [one for one in exchange.waiting.values() if one.site == site]:
        given = Answer(id=sent.id, error_code=code, reason=reason)
        exchange, decision = answer(exchange, given, Told(), now)
        say, answers = say + decision.say, answers + decision.answers
    return exchange, Decision(say, answers)


def _completed(exchange: Exchange, model_digest: str, now: datetime) -> tuple[Exchange, tuple[Message, ...]]:
    if exchange.training is None:
        return exchange, ()
    word = said.completed(exchange, exchange.training, model_digest, now)
    return exchange.model_copy(update={"training": None, "model_digest": model_digest}), (word,)


def _evaluated(exchange: Exchange, now: datetime) -> tuple[Exchange, tuple[Message, ...]]:
    if exchange.evaluation is None or any(one.category == EVALUATE for one in exchange.waiting.values()):
        return exchange, ()
    words = said.evaluated(exchange, exchange.evaluation, now)
    return exchange.model_copy(update={"evaluation": None}), words
