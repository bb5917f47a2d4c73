"""What happens to a delivery: it is heard, and the server is told how that ended.

One listener per stream; a consumer has at most one delivery outstanding, so that order holds. The price is that a
delivery which got lost on its way, or whose acknowledgement did, holds up everything behind it until the server's
patience ends. So an acknowledgement is said again on a new connection, and a delivery that the server believes to be in
our hands and is not is asked for at once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import nats.errors
from faststream.nats import NatsMessage
from nats.aio.client import Client
from nats.js import api
from opentelemetry.trace import SpanKind

from windfall.contracts.envelope import Letter, Unreadable, unseal
from windfall.contracts.message import Message
from windfall.servicekit import metrics
from windfall.servicekit.bus import DELIVERIES, Ears, Hearing, broken, buried, messaging, rest
from windfall.servicekit.errors import Mistake, Poison, Transient
from windfall.servicekit.instruments import DEAD_LETTERS, PROCESSED, REDELIVERED
from windfall.servicekit.telemetry import span

log = logging.getLogger(__name__)

_SLACK_S: Final = 0.5


class Listener:
    """Handles the deliveries of one consumer.

    Args:
        service: who hears.
        consumer: its name on the server.
        hearing: the stream and what is taken from it.
        ears: the handlers.
        ack_wait: how long the server waits for a sign of life.
        line: which connection this is, counted from the first; none while there is none.
        publish: stores a letter, for the dead ones. Raises ``Transient``.
        on_mistake: told when a person must mend something.
    """

    def __init__(
        self,
        service: str,
        consumer: str,
        hearing: Hearing,
        ears: Ears,
        ack_wait: timedelta,
        line: Callable[[], int | None],
        publish: Callable[[Letter], Awaitable[None]],
        on_mistake: Callable[[Mistake], None],
    ) -> None:
        self.consumer = consumer
        self.hearing = hearing
        self.stopping = False
        self._service = service
        self._ears = ears
        self._ack_wait_s = ack_wait.total_seconds()
        self._line = line
        self._publish = publish
        self._on_mistake = on_mistake
        self._of_stream = {"windfall.stream": hearing.stream}
        # A counter that is first seen at 1 has not grown, for whoever looks at its rate.
        metrics.record(DEAD_LETTERS, 0, self._of_stream)
        self.lag = 0
        """Messages of the stream that wait for us, as the server said last."""
        self._busy = False
        self._rests_until = 0.0
        self._outstanding: int | None = None
        self._doubt = False

    async def deliver(self, body: bytes, delivered: NatsMessage) -> None:
        """Take one delivery from FastStream. Nothing crosses this edge but a cancellation."""
        raw = delivered.raw_message
        letter = Letter(raw.subject, dict(raw.headers or {}), raw.data)
        progress = asyncio.create_task(self._keep_in_progress(raw))
        self._busy = True
        try:
            await self._settle(raw, letter)
        except (Transient, TimeoutError, nats.errors.Error) as error:
            # Neither taken nor refused: it will be delivered again, and the handler knows its id.
            log.info("%s could not be settled: %s: %s", letter.subject, type(error).__name__, error)
            self._doubt = True
        finally:
            self._busy = False
            progress.cancel()

    async def ask_for_lost(self, client: Client, info: api.ConsumerInfo) -> None:
        """Called now and then with what the server says: when it twice names the same outstanding delivery, which is
        neither in our hands nor put off by us, it is lost. Once is enough after one that could not be settled. It is
        refused, so that it comes again at once.
        """
        self.lag = (info.num_pending or 0) + (info.num_ack_pending or 0)
        delivered = info.delivered
        idle = self._busy or asyncio.get_running_loop().time() < self._rests_until
        if idle or not info.num_ack_pending or delivered is None:
            self._outstanding = None
            return
        if self._outstanding != delivered.consumer_seq and not self._doubt:
            self._outstanding = delivered.consumer_seq
            return
        log.info("a delivery of %s was lost: asking for it again", info.stream_name)
        reply = f"$JS.ACK.{info.stream_name}.{self.consumer}.1.{delivered.stream_seq}.{delivered.consumer_seq}.0.0"
        await client.publish(reply, b"-NAK")
        self._outstanding = None
        self._doubt = False

    async def _settle(self, raw: Any, letter: Letter) -> None:
        delivery = raw.metadata.num_delivered
        if delivery > 1:
            metrics.record(REDELIVERED, 1, self._of_stream)
        try:
            if delivery > DELIVERIES:
                raise Poison(f"delivered {delivery - 1} times and never handled")
            await self._hear(unseal(letter), letter)
        except Transient as error:
            wait_s = rest(error, delivery).total_seconds()
            log.info("%s comes back in %.1f s: %s", letter.subject, wait_s, error)
            self._rest(wait_s)
            await raw.nak(delay=wait_s)
        except (Poison, Unreadable) as error:
            log.error("%s goes to the dead letters: %s", letter.subject, error)
            # Stored there before it is terminated here, so that a crash between leaves two copies and never none.
            await self._publish(buried(self._service, letter, str(error)))
            metrics.record(DEAD_LETTERS, 1, self._of_stream)
            await raw.term()
        except Mistake as error:
            self._rest(self._ack_wait_s)
            self._on_mistake(error)
        except Exception as error:
            # The root above every handler: whatever it is, it ends the service and keeps the message, and is not lost
            # in a subscriber that would log it and go on.
            log.exception("the handler of %s broke", letter.subject)
            self._rest(self._ack_wait_s)
            self._on_mistake(broken(letter.subject, error))
        else:
            await self._acknowledge(raw)

    def _rest(self, seconds: float) -> None:
        self._rests_until = asyncio.get_running_loop().time() + seconds + _SLACK_S

    async def _acknowledge(self, raw: Any) -> None:
        """A server that forgot the delivery in its crash does not answer, and delivers again by itself."""
        deadline = asyncio.get_running_loop().time() + self._ack_wait_s
        while True:
            before = self._line()
            try:
                await raw.ack_sync()
                return
            except TimeoutError:
                steady = before is not None and before == self._line()
                if steady or self.stopping or asyncio.get_running_loop().time() > deadline:
                    raise

    async def _hear(self, message: Message, letter: Letter) -> None:
        with (
            span(
                f"process {letter.headers.get('ce-type', letter.subject)}",
                kind=SpanKind.CONSUMER,
                parent=letter.headers,
                attributes=messaging("process", letter, self._service),
            ),
            metrics.timed(PROCESSED, {"messaging.operation.name": "process"}),
        ):
            await self._ears.handle(message)

    async def _keep_in_progress(self, raw: Any) -> None:
        while True:
            await asyncio.sleep(self._ack_wait_s / 3)
            with suppress(nats.errors.Error):
                # A server that is away hears it from the next round.
                await raw.in_progress()
