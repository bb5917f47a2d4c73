"""``windfall dlq``: the sentences that a service could not handle. A person reads them, replays them or drops them."""

from contextlib import aclosing
from dataclasses import dataclass

from nats.aio.client import Client

from windfall.cli.resources.versioned import single
from windfall.cli.server import Stored, connection, letters, store, stream_info
from windfall.contracts.envelope import MESSAGE_ID, Letter
from windfall.contracts.subjects import DEAD_PREFIX, DEAD_STREAM
from windfall.servicekit.bus import DEAD_REASON
from windfall.servicekit.errors import Mistake


@dataclass(frozen=True)
class DeadLetter:
    """A buried letter: who could not handle it, why, and what it was."""

    sequence: int
    consumer: str
    reason: str
    letter: Letter
    """As it was before it was buried."""


def exhumed(stored: Stored) -> DeadLetter:
    """Take a dead letter out of its coffin.

    It is replayed under a message id of its own: the stream that it goes back to may still remember the first one and
    would drop it. The event's id is the same, so that services that did handle it take it once.
    """
    consumer, _, subject = stored.letter.subject.removeprefix(f"{DEAD_PREFIX}.").partition(".")
    headers = {key: value for key, value in stored.letter.headers.items() if key != DEAD_REASON}
    reason = stored.letter.headers.get(DEAD_REASON, "no reason given")
    headers[MESSAGE_ID] = f"replay-{stored.sequence}-{headers.get('ce-id', consumer)}"
    return DeadLetter(stored.sequence, consumer, reason, Letter(subject, headers, stored.letter.body))


def in_words(dead: DeadLetter) -> str:
    """All of it, as it lies."""
    told = [dead.letter.subject, f"not handled by {dead.consumer}: {dead.reason}", ""]
    told += [f"{name}: {value}" for name, value in dead.letter.headers.items()]
    return "\n".join([*told, "", dead.letter.body.decode(errors="backslashreplace")])


def for_machines(dead: DeadLetter, form: str) -> str:
    """All of it, as ``json``, ``yaml`` or ``jsonl``: bytes of the body that are no text stand as ``\\xff``."""
    about = {
        "name": str(dead.sequence),
        "consumer": dead.consumer,
        "subject": dead.letter.subject,
        "reason": dead.reason,
        "headers": dict(dead.letter.headers),
        "body": dead.letter.body.decode(errors="backslashreplace"),
    }
    return single("DeadLetter", about, form)


async def listed(url: str) -> tuple[DeadLetter, ...]:
    """All dead letters of a server's domain, oldest first."""
    async with connection(url) as client:
        return await _all(client)


async def one(url: str, sequence: int) -> DeadLetter:
    """One dead letter by its number.

    Raises:
        Mistake: there is none.
    """
    async with connection(url) as client:
        return _pick(await _all(client), sequence)


async def replay(url: str, sequence: int | None) -> int:
    """Say one dead letter (all, when none is named) again, and take it off the list; how many."""
    async with connection(url) as client:
        dead = await _all(client)
        for letter in dead if sequence is None else (_pick(dead, sequence),):
            await store(client, letter.letter)
            # Off the list only when it is stored: a crash between leaves it listed, and its id makes twice once.
            await _delete(client, letter.sequence)
        return len(dead) if sequence is None else 1


async def drop(url: str, sequence: int | None) -> int:
    """Forget one dead letter (all, when none is named); how many."""
    async with connection(url) as client:
        dead = await _all(client)
        for letter in dead if sequence is None else (_pick(dead, sequence),):
            await _delete(client, letter.sequence)
        return len(dead) if sequence is None else 1


def _pick(dead: tuple[DeadLetter, ...], sequence: int) -> DeadLetter:
    for letter in dead:
        if letter.sequence == sequence:
            return letter
    raise Mistake(f"there is no dead letter {sequence}", "See `windfall dlq list` for those there are")


async def _all(client: Client) -> tuple[DeadLetter, ...]:
    waiting = (await stream_info(client, DEAD_STREAM)).state.messages
    found: list[DeadLetter] = []
    if waiting:
        async with aclosing(letters(client, DEAD_STREAM)) as stream:
            async for stored in stream:
                found.append(exhumed(stored))
                if len(found) == waiting:
                    break
    return tuple(found)


async def _delete(client: Client, sequence: int) -> None:
    await client.jetstream().delete_msg(DEAD_STREAM, sequence)
