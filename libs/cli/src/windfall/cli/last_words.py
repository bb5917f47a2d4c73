"""The last word of each kind that a server keeps."""

from collections.abc import Sequence

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from windfall.contracts.envelope import Letter, Unreadable, unseal
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM
from windfall.servicekit.errors import ExitCode, Mistake


async def last_words(client: Client, subjects: Sequence[str]) -> list[Message]:
    """The newest sentence on each subject; what is no sentence is passed over.

    Raises:
        Mistake: the server does not answer.
    """
    found: list[Message] = []
    for subject in subjects:
        try:
            raw = await client.jetstream().get_last_msg(EVENTS_STREAM, subject)
            found.append(unseal(Letter(raw.subject or "", dict(raw.headers or {}), raw.data or b"")))
        except (nats.js.errors.NotFoundError, Unreadable):
            continue
        except (TimeoutError, nats.errors.Error) as error:
            raise Mistake(
                f"the server did not give its last {subject} ({type(error).__name__})", "Try again", ExitCode.SERVER
            ) from error
    return found
