"""Tenants of one hub, and the facts that one of them lends another. Pure.

A tenant is a party with federations and sites of its own. What it says is held apart from the others' by an account of
the hub's NATS server: subjects, streams, buckets and answers of one tenant do not exist for another, and two tenants
may call a site, or a federation, by one name. The tenant ``default`` is there without being named, and is the only one
where no other is.

What crosses is a loan: one kind of fact about one site or federation, from one tenant to one other. The lender's
coordinator says it again under a subject of its own, which the server hands to the borrower under the fact's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from pydantic import TypeAdapter, ValidationError

from windfall.contracts.events import EVENTS
from windfall.contracts.message import Message, Name
from windfall.contracts.subjects import subject_for

DEFAULT: Final = "default"
"""The tenant that every hub has."""
LENT_PREFIX: Final = "windfall.lent"
TENANT_BYTES: Final = 1024**3
"""What a tenant may store where nothing else is said: its streams take 449 MiB for each copy that is kept of them."""


@dataclass(frozen=True)
class Tenant:
    """A party beside the default one.

    Raises:
        ValueError: its name is no name, or the default one's; it may store nothing.
    """

    name: str
    users: Mapping[str, str]
    """Public nkeys of its services at the hub, and of its ``admin``."""
    leaves: Mapping[str, str] = field(default_factory=dict)
    """Public nkeys by which the servers of its sites join, by site."""
    max_bytes: int = TENANT_BYTES
    """Of its streams on disk, all copies together."""

    def __post_init__(self) -> None:
        _named(self.name)
        if self.name == DEFAULT:
            raise ValueError(f"a tenant cannot be called {DEFAULT!r}: that one is always there")
        if self.max_bytes < 1:
            raise ValueError(f"{self.name} may store nothing")


@dataclass(frozen=True)
class Loan:
    """One kind of fact about one site or federation that a tenant lets another hear.

    Raises:
        ValueError: a name is none, or a tenant lends itself something.
    """

    kind: type[Message]
    whom: str
    lender: str
    borrower: str

    def __post_init__(self) -> None:
        for name in (self.whom, self.lender, self.borrower):
            _named(name)
        if self.lender == self.borrower:
            raise ValueError(f"{self.lender} lends itself {self.kind.topic}.{self.whom}")

    @classmethod
    def read(cls, text: str, lender: str = DEFAULT) -> Self:
        """Read ``BORROWER:NOUN.VERB.WHOM``, like ``lab:window.opened.quebec``.

        Raises:
            ValueError: it is no fact about one site or federation, for one tenant.
        """
        borrower, _, fact = text.partition(":")
        topic, _, whom = fact.rpartition(".")
        kind = _FACTS.get(topic)
        if kind is None:
            raise ValueError(f"{text!r} lends no fact; write BORROWER:NOUN.VERB.WHOM, like lab:window.opened.quebec")
        return cls(kind, whom, lender, borrower)

    @property
    def subject(self) -> str:
        """Where the fact is said, with the lender as with the borrower."""
        return subject_for(self.kind, self.whom)

    @property
    def lent_as(self) -> str:
        """Where the lender says it for the borrower."""
        return f"{LENT_PREFIX}.{self.borrower}.{self.kind.topic}.{self.whom}"


def lending_to(borrower: str) -> str:
    """Name of the consumer that takes from the lender's stream what it lends this tenant."""
    return f"lends-{borrower}"


_FACTS: Final[Mapping[str, type[Message]]] = {kind.topic: kind for kind in EVENTS}
_NAME: Final[TypeAdapter[str]] = TypeAdapter(Name)


def _named(name: str) -> None:
    try:
        _NAME.validate_python(name)
    except ValidationError as error:
        raise ValueError(f"{name!r} is no name: use lower-case letters, digits and dashes within") from error
