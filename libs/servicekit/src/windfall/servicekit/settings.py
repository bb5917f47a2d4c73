"""Settings: read once from the environment, validated as a whole, frozen.

A field ``state_dir`` is read from ``WINDFALL_STATE_DIR``. Variables that are unset or empty take the field's default;
every mistake is reported at once, before anything starts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from windfall.contracts.message import Name
from windfall.contracts.subjects import HUB
from windfall.servicekit.clock import parse_clock
from windfall.servicekit.errors import Mistake
from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_tls import NatsTls
from windfall.servicekit.tls import Tls

PREFIX = "WINDFALL_"


def _clock(text: str) -> str:
    parse_clock(text)
    return text


def _server(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in {"nats", "tls", "ws", "wss"} or not url.hostname or url.port == 0:
        raise ValueError(f"{text!r} is not like 'nats://host:4222'")
    return text


class NatsSettings(BaseModel):
    """How a NATS server is reached over TLS (``tls://``), and by which key it knows us."""

    nats_authority: Path | None = None
    """PEM certificate of the authority that signed the server's; unset: whom the system believes."""
    nats_certificate: Path | None = None
    """PEM certificate of ours, where the server asks for one."""
    nats_key: Path | None = None
    """Its private key."""
    nats_tls_first: bool = False
    """The server begins with TLS (``handshake_first``), instead of asking for it in plain text."""
    nats_nkey_file: Path | None = None
    """File with the seed of our nkey, where the server asks for one."""

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if (self.nats_certificate is None) != (self.nats_key is None):
            raise ValueError("WINDFALL_NATS_CERTIFICATE and WINDFALL_NATS_KEY go together")
        return self

    @property
    def domain(self) -> str:
        """The JetStream domain in which we live: the hub's, or a site's."""
        return HUB

    @property
    def nats_tls(self) -> NatsTls:
        return NatsTls(self.nats_authority, self.nats_certificate, self.nats_key)

    @property
    def nats_access(self) -> Access:
        return Access(self.nats_tls, self.nats_tls_first, self.nats_nkey_file, f"_INBOX.{self.domain}")


class Settings(NatsSettings):
    """What every service is told."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    nats_url: Annotated[str, AfterValidator(_server)] = "nats://127.0.0.1:4222"
    """NATS server of this service's own domain: the site's, or the hub's."""
    nats_replicas: int = Field(default=1, ge=1, le=5)
    """Servers of the domain that keep a copy of each stream: 3 where it is a cluster of three. Every service of the
    domain is told the same."""
    state_dir: Path
    """Folder of this service alone: its journal and whatever it keeps. It is created when missing."""
    clock: Annotated[str, AfterValidator(_clock)] = "system"
    """``system``, or ``replay:<trace instant>@<wall instant>x<speed>`` for a demo or a rehearsal; ``file:<path>`` names
    a file that holds one of these."""
    health_port: int = Field(default=0, ge=0, le=65535)
    """Loopback port of the liveness and readiness endpoint; 0 takes a free one. It is written to ``health.json``."""
    traces_file: Path | None = None
    """Spans as JSON lines. Spans also go by OTLP when ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set."""

    @model_validator(mode="before")
    @classmethod
    def _seconds(cls, given: Any) -> Any:
        """Durations may be plain seconds, beside ISO 8601 like ``PT10M``."""
        if not isinstance(given, dict):
            return given
        durations = {name for name, field in cls.model_fields.items() if "timedelta" in str(field.annotation)}
        return {key: _number(value) if key in durations else value for key, value in given.items()}


def _number(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _not_the_hub(site: str) -> str:
    if site == HUB:
        raise ValueError(f"a site cannot be called {HUB!r}: that is the hub's domain")
    return site


class SiteSettings(Settings):
    """What every service of a site is told."""

    site: Annotated[Name, AfterValidator(_not_the_hub)]
    """Name of the site: its JetStream domain and the last token of its subjects."""

    @property
    def domain(self) -> str:
        return self.site


class TlsSettings(BaseModel):
    """One end of mutual TLS: all three files, or none on loopback."""

    tls_certificate: Path | None = None
    """PEM certificate of this service."""
    tls_key: Path | None = None
    """Its private key."""
    tls_authority: Path | None = None
    """Certificate of the authority that the other end must be signed by."""
    tls_revoked: Path | None = None
    """Serials of certificates that are not let in, one a line in hexadecimal; it is read again when it changes."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = [self.tls_certificate, self.tls_key, self.tls_authority]
        if (any(given) or self.tls_revoked) and not all(given):
            raise ValueError("TLS needs WINDFALL_TLS_CERTIFICATE, WINDFALL_TLS_KEY and WINDFALL_TLS_AUTHORITY together")
        return self

    @property
    def tls(self) -> Tls | None:
        if self.tls_certificate is None or self.tls_key is None or self.tls_authority is None:
            return None
        return Tls(self.tls_certificate, self.tls_key, self.tls_authority, self.tls_revoked)


S = TypeVar("S", bound=BaseModel)


def load(kind: type[S], environ: Mapping[str, str]) -> S:
    """Read one service's settings, or those of a part of it.

    Raises:
        Mistake: naming every variable that is wrong or missing, in one line.
    """
    given = {name: text for name in kind.model_fields if (text := environ.get(PREFIX + name.upper()))}
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        # Of a variable that holds a JSON object, which part is wrong.
        parts = {name: str(text).lstrip().startswith("{") for name, text in given.items()}
        found = [(mistake["loc"], mistake["msg"]) for mistake in error.errors()]
        wrong = "; ".join(_explain(loc if loc and parts.get(str(loc[0])) else loc[:1], said) for loc, said in found)
        raise Mistake(f"settings are wrong: {wrong}", "Set these variables and start again") from error


def _explain(where: tuple[int | str, ...], message: str) -> str:
    said = " ".join(message.removeprefix("Value error, ").split())
    if not where:
        # It concerns several variables at once, and names them.
        return said
    within = f" ({'.'.join(map(str, where[1:]))})" if len(where) > 1 else ""
    return f"{PREFIX}{str(where[0]).upper()}{within}: {said[0].lower()}{said[1:]}"
