"""What a provider is told: a frozen section of settings, and the means to work with."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from random import Random
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """One signal of a site. It never holds a credential: those come from the environment or a mounted file."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        # A person may have put a credential where none belongs; an error must not print it.
        hide_input_in_errors=True,
    )


class OwnSection(Section):
    """What a provider of another package is told: derive from it (``windfall.energy_watcher.own_provider``)."""

    provider: str
    """The name of its entry point."""


class HttpSection(Section):
    """A signal that is asked for by HTTP. All durations are wall time."""

    url: str
    """Where the provider is: ``https://host[:port][/path]``, without user, query or fragment."""
    plain_text: bool = False
    """Allow ``http://`` to another machine. Whoever is on the way can then read the credential and set the signal."""
    connect_timeout: timedelta = Field(default=timedelta(seconds=10), gt=timedelta(0))
    read_timeout: timedelta = Field(default=timedelta(seconds=30), gt=timedelta(0))
    retries: int = Field(default=3, ge=0, le=10)
    """How often a request is repeated that found nobody, or a server in trouble."""
    longest_wait: timedelta = Field(default=timedelta(seconds=20), gt=timedelta(0))
    """The longest pause before a repetition. When the provider asks for more, the caller is told instead."""
    most_bytes: int = Field(default=8 << 20, gt=0)
    """An answer that is larger is refused."""

    @model_validator(mode="after")
    def _reachable_and_private(self) -> Self:
        try:
            url = urlsplit(self.url)
            host, _ = url.hostname, url.port
        except ValueError:
            raise ValueError("url is not like 'https://host/path'") from None
        if url.scheme not in {"http", "https"} or not host:
            raise ValueError("url is not like 'https://host/path'")
        if url.username is not None or url.password is not None:
            raise ValueError("url holds a user or a password; give the credential by its own variable")
        if url.query or url.fragment:
            raise ValueError("url holds a query or a fragment; leave them out")
        if url.scheme == "http" and not (self.loopback or self.plain_text):
            raise ValueError(f"url is plain text to {host}; use https, or set plain_text to true")
        return self

    @property
    def loopback(self) -> bool:
        """Whether the provider runs on this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


@dataclass(frozen=True)
class Means:
    """What a provider works with beside its section."""

    site: str
    signal: str
    """The site's name for the signal."""
    environ: Mapping[str, str] = field(repr=False)
    """Where credentials are; not to be shown."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Lets wall seconds pass between two tries; tests let none pass."""
    random: Random = field(default_factory=Random)
    """Of the jitter."""
