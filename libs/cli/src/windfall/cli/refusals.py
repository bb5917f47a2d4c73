"""Why a server does not let a person in, and what to do about it: one line for each cause."""

import ssl
from typing import Final

from windfall.servicekit.errors import ExitCode, Mistake

_AUTHORIZATION: Final = "authorization violation"
_AWAY: Final = "Start one, or give its address with --server, WINDFALL_NATS_URL or `windfall context use`"
_KEY: Final = "Show it one that it knows: WINDFALL_NATS_NKEY_FILE, or `windfall context set NAME --nkey-file FILE`"
_CLOCK: Final = "Set the clock of this machine by NTP"


def is_refusal(error: Exception) -> bool:
    """Whether trying again, with what we show, ends the same way."""
    return isinstance(error, ssl.SSLError) or _AUTHORIZATION in str(error).lower()


def unreachable(url: str, error: Exception) -> Mistake:
    """What a person is told who could not connect."""
    if isinstance(error, ssl.SSLError):
        return Mistake(*_of_tls(url, error), ExitCode.SERVER)
    if _AUTHORIZATION in str(error).lower():
        return Mistake(f"the NATS server at {url} does not know our key", _KEY, ExitCode.SERVER)
    return Mistake(f"no NATS server at {url} ({str(error) or 'no answer'})", _AWAY, ExitCode.SERVER)


def _of_tls(url: str, error: ssl.SSLError) -> tuple[str, str]:
    if not isinstance(error, ssl.SSLCertVerificationError):
        alert = (error.reason or str(error)).lower().replace("_", " ")
        return (
            f"no TLS with the NATS server at {url} ({alert})",
            "Show a certificate that it believes: WINDFALL_NATS_CERTIFICATE and WINDFALL_NATS_KEY, or a context's",
        )
    why = error.verify_message
    cause = f"the certificate of the NATS server at {url} is not believed ({why})"
    if "not yet valid" in why:
        return cause, f"{_CLOCK}, or wait until it is valid"
    if "expired" in why:
        return cause, f"{_CLOCK}; if that is right, the server needs a new one: `windfall keys`"
    if "mismatch" in why.lower():
        return cause, "Say the address by a name that stands in the certificate"
    return cause, "Say who signed it: WINDFALL_NATS_AUTHORITY, or `windfall context set NAME --authority FILE`"
