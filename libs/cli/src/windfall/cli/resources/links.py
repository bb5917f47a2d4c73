"""Links as rows, so that they are shown as everything else is."""

from typing import Final

from windfall.cli.links import Measured
from windfall.cli.resources.resource import Resource, Rows
from windfall.contracts.message import Message


def _nothing(_: Rows, __: Message) -> None:
    """The matrix is folded by ``windfall.cli.links``: a link has two ends, and no name."""


LINKS: Final = Resource(
    "links",
    "Link",
    ("link",),
    Measured,
    (
        ("from", "site"),
        ("to", "target"),
        ("round trip ms", "rtt_ms"),
        ("jitter ms", "jitter_ms"),
        ("up mb/s", "up_mb_per_s"),
        ("down mb/s", "down_mb_per_s"),
        ("at", "at"),
        ("out of its band", "degraded"),
    ),
    (),
    (),
    _nothing,
    newest=False,
    empty="no link has been measured yet: that happens when the first window of a site opens",
)
