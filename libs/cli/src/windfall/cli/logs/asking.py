"""Services are asked for their logs, once or for as long as somebody follows."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Final
from uuid import uuid4

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from windfall.cli.logs.addressing import Addressee, addressees
from windfall.cli.logs.hearing import Heard, complaint, dropping, told, unanswered
from windfall.cli.logs.showing import Told, of
from windfall.cli.server import connection, domain_of
from windfall.contracts.logs import LEASE, LogAsk, LogTold, LogWish
from windfall.contracts.subjects import log_asked, log_told
from windfall.servicekit.errors import ExitCode, Mistake

AGAIN: Final = LEASE / 4
"""How often who follows asks again."""

_QUIET: Final = timedelta(milliseconds=250)
"""How long another process of a service may take to begin after the others have told all."""
_ECHO: Final = timedelta(seconds=2)
"""How long a server may take to look at what we said."""
_NO_RESPONDERS: Final = "503"


async def read(
    url: str, texts: Sequence[str], wish: LogWish, tail: int | None, patience: timedelta
) -> tuple[Sequence[Told], Sequence[str], Sequence[Mistake]]:
    """What services keep of their logs now.

    Args:
        texts: ``SERVICE[@WHOM]``; all that answer when there is none.
        tail: how many lines of each process.
        patience: how long a service may be silent.

    Returns:
        The lines, what of them is gone, and why some were not told.

    Raises:
        Mistake: the server cannot be used, or has none of these.
    """
    async with _asking(url, texts, wish, tail, follow=False) as asking:
        await asking.ask()
        lines: list[Told] = []
        gone: list[str] = []
        while await asking.hear(asking.next_by(patience), lines.append, gone.append):
            pass
        return lines, gone, list(asking.complaints(patience, named=bool(texts), overdue=True).values())


async def follow(
    url: str,
    texts: Sequence[str],
    wish: LogWish,
    tail: int | None,
    patience: timedelta,
    show: Callable[[Told], None],
    complain: Callable[[str], None],
) -> None:
    """Show what services keep of their logs, and then each new line, for ever. Who is not there, or ends, is told of
    once, and its lines are shown when it is there again.

    Raises:
        Mistake: the server cannot be used, or has none of these.
    """
    loop = asyncio.get_running_loop()
    async with _asking(url, texts, wish, tail, follow=True) as asking:
        overdue_s = loop.time() + patience.total_seconds()
        complained: set[str] = set()
        while True:
            await asking.ask()
            again_s = loop.time() + AGAIN.total_seconds()
            while await asking.hear(again_s, show, complain) or loop.time() < again_s:
                wrong = asking.complaints(patience, named=bool(texts), overdue=loop.time() >= overdue_s)
                for text in wrong.keys() - complained:
                    if wrong[text].exit_code is ExitCode.USAGE:
                        raise wrong[text]
                    complain(text)
                complained = set(wrong)


class Asking:
    """One person's end of it. A token names each addressee's answers."""

    def __init__(
        self, client: Client, domain: str, whom: Sequence[Addressee], wish: LogWish, tail: int | None, follow: bool
    ) -> None:
        self._client = client
        self._place = domain or "this server"
        self._wish, self._tail, self._follow = wish, tail, follow
        self._whom = {uuid4().hex: one for one in whom}
        self._heard = {token: Heard() for token in self._whom}
        self._inboxes = {token: client.new_inbox() for token in self._whom}
        self._echo, self._echoed = client.new_inbox(), asyncio.Event()
        self._queue: asyncio.Queue[tuple[str, LogTold | Mistake | None]] = asyncio.Queue()
        self._first = True

    async def listen(self) -> None:
        """Where answers come, and where the server says that nobody answers."""

        async def echoed(_: Msg) -> None:
            self._echoed.set()

        await self._client.subscribe(self._echo, cb=echoed)
        for token, one in self._whom.items():

            async def answered(message: Msg, token: str = token, one: Addressee = one) -> None:
                self._queue.put_nowait((token, _batch(message.data, one)))

            async def returned(message: Msg, token: str = token) -> None:
                if (message.headers or {}).get("Status") == _NO_RESPONDERS:
                    self._queue.put_nowait((token, None))

            await self._client.subscribe(log_told(one.service, token), cb=answered)
            await self._client.subscribe(self._inboxes[token], cb=returned)

    async def ask(self) -> None:
        """Say what is wanted, for the first time or again.

        Raises:
            Mistake: our key may not.
        """
        for token, one in self._whom.items():
            seen = None if self._first else dict(self._heard[token].seen)
            ask = LogAsk(token=token, wish=self._wish, whom=one.whom, tail=self._tail, follow=self._follow, seen=seen)
            body = ask.model_dump_json(exclude_defaults=True).encode()
            with suppress(nats.errors.Error):
                # A server that is away is asked again.
                await self._client.publish(log_asked(one.service), body, reply=self._inboxes[token])
        self._first = False
        await self._taken()
        if "permissions violation" in str(self._client.last_error).lower():
            raise Mistake(
                f"our key may not ask for logs at {self._place}",
                "Show that of `admin`, who may everything there: WINDFALL_NATS_NKEY_FILE, or a context's",
                ExitCode.SERVER,
            )

    async def _taken(self) -> None:
        """Until the server has looked at all that we said: a word to ourselves comes back behind what it refuses. The
        client's own flush may overtake what it has not sent yet."""
        self._echoed.clear()
        with suppress(TimeoutError, nats.errors.Error):
            # A server that is away, or lets us hear nothing, says so by silence.
            await self._client.publish(self._echo, b"")
            async with asyncio.timeout(_ECHO.total_seconds()):
                await self._echoed.wait()

    async def hear(self, until_s: float, show: Callable[[Told], None], lost: Callable[[str], None]) -> bool:
        """Take the next answer; false when none came by then, in the loop's time.

        Raises:
            Mistake: it cannot be understood.
        """
        try:
            async with asyncio.timeout_at(until_s):
                token, batch = await self._queue.get()
        except TimeoutError:
            return False
        if isinstance(batch, Mistake):
            raise batch
        if batch is None:
            self._heard[token] = unanswered(self._heard[token])
            return True
        self._heard[token], lines = told(self._heard[token], batch)
        if gone := dropping(batch):
            lost(gone)
        for line in of(batch, lines):
            show(line)
        return True

    def next_by(self, patience: timedelta) -> float:
        """Until when the next answer may come, in the loop's time."""
        heard = self._heard.values()
        rest = timedelta(0) if all(one.nobody for one in heard) else patience
        if rest and all(one.settled for one in heard):
            rest = _QUIET
        return asyncio.get_running_loop().time() + rest.total_seconds()

    def complaints(self, patience: timedelta, named: bool, overdue: bool) -> Mapping[str, Mistake]:
        """Who told nothing, or not all, by its words; where none was named, only who is there and does not tell."""
        found = [
            complaint(heard, self._whom[token], self._place, patience.total_seconds())
            for token, heard in self._heard.items()
            if (overdue or heard.settled) and (named or not heard.nobody)
        ]
        return {str(one): one for one in found if one is not None}


def _batch(data: bytes, of: Addressee) -> LogTold | Mistake:
    try:
        return LogTold.model_validate_json(data)
    except ValidationError:
        return Mistake(
            f"{of} tells its log in words that this version does not know",
            "Use a `windfall` of its version",
            ExitCode.SERVER,
        )


@asynccontextmanager
async def _asking(
    url: str, texts: Sequence[str], wish: LogWish, tail: int | None, follow: bool
) -> AsyncIterator[Asking]:
    async with connection(url) as client:
        domain = await domain_of(client)
        asking = Asking(client, domain, addressees(texts, domain), wish, tail, follow)
        await asking.listen()
        yield asking
