"""Whose log is meant, and whether it can be had at this server. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from windfall.cli.nearest import near
from windfall.contracts.subjects import HUB, HUB_SERVICES, SITE_SERVICES
from windfall.servicekit.errors import ExitCode, Mistake


@dataclass(frozen=True)
class Addressee:
    """A service, and the site or federation that it serves when one was named."""

    service: str
    whom: str = ""

    def __str__(self) -> str:
        return f"{self.service}@{self.whom}" if self.whom else self.service


def addressees(texts: Sequence[str], domain: str) -> Sequence[Addressee]:
    """Whom ``SERVICE[@WHOM]`` mean at a server; every service of its domain when none is named.

    Args:
        domain: the hub, or a site; empty when the server does not say.

    Raises:
        Mistake: there is no such service, or it stands elsewhere.
    """
    here = SITE_SERVICES if domain not in ("", HUB) else HUB_SERVICES if domain else (*SITE_SERVICES, *HUB_SERVICES)
    return tuple(dict.fromkeys(_addressee(text, domain) for text in texts)) or tuple(map(Addressee, here))


def _addressee(text: str, domain: str) -> Addressee:
    service, at, whom = text.partition("@")
    every = [*SITE_SERVICES, *HUB_SERVICES]
    if service not in every:
        raise Mistake(f"no service {service!r} tells its log", near(service, every))
    if at and not whom:
        raise Mistake(f"{text!r} names no site", f"Write {service}@SITE, or {service} alone")
    if domain == HUB and service in SITE_SERVICES:
        raise Mistake(
            f"the log of {service} stays at {whom or 'its site'}, and this is the server of the hub",
            "Ask the site's own server, where you stand there: --server or --context",
            ExitCode.SERVER,
        )
    if domain not in ("", HUB):
        if service in HUB_SERVICES:
            raise Mistake(
                f"{service} stands at the hub, and this is the server of {domain}",
                "Ask the hub's server: --server or --context",
                ExitCode.SERVER,
            )
        if whom not in ("", domain):
            raise Mistake(
                f"the log of {service} at {whom} stays there, and this is the server of {domain}",
                f"{near(whom, [domain])} Another site is asked at its own server: --server or --context",
                ExitCode.SERVER,
            )
    return Addressee(service, whom)
