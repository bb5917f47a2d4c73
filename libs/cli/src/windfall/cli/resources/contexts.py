"""Contexts as rows, so that they are shown as everything else is."""

from dataclasses import dataclass

from windfall.cli.contexts import Contexts
from windfall.cli.resources.resource import Resource, Rows
from windfall.contracts.message import Message


@dataclass(frozen=True)
class ContextRow:
    """One context, and whether it counts."""

    name: str
    current: str
    server: str
    authority: str
    certificate: str
    key: str
    """The file's path."""
    nkey_file: str
    tls_first: bool
    coordinator: str
    tls_authority: str
    tls_certificate: str
    tls_key: str
    """The file's path."""


def listed(known: Contexts) -> list[ContextRow]:
    """By name."""
    return [
        ContextRow(
            name=one.name,
            current="yes" if one.name == known.current else "",
            server=one.server,
            authority=one.authority,
            certificate=one.certificate,
            key=one.key,
            nkey_file=one.nkey_file,
            tls_first=one.tls_first,
            coordinator=one.coordinator,
            tls_authority=one.tls_authority,
            tls_certificate=one.tls_certificate,
            tls_key=one.tls_key,
        )
        for _, one in sorted(known.all.items())
    ]


def _nothing(_: Rows, __: Message) -> None:
    """No event makes a context."""


CONTEXTS = Resource(
    "contexts",
    "Context",
    ("context",),
    ContextRow,
    (("context", "name"), ("counts", "current"), ("server", "server")),
    (
        ("authority", "authority"),
        ("certificate", "certificate"),
        ("key", "key"),
        ("nkey", "nkey_file"),
        ("tls first", "tls_first"),
        ("coordinator", "coordinator"),
        ("tls authority", "tls_authority"),
        ("tls certificate", "tls_certificate"),
        ("tls key", "tls_key"),
    ),
    (),
    _nothing,
    newest=False,
    empty="no context was made yet. Make one with `windfall context set NAME --server tls://HOST:4222`",
)
