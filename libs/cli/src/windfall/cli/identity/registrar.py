"""Keeps the register: each decision is in the journal before anything follows from it."""

import asyncio
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from windfall.cli.identity import register as decisions
from windfall.cli.identity import tenants, token
from windfall.cli.identity.authority import Signed, fingerprint
from windfall.cli.identity.register import Cause, Certified, Guest, Lent, Refusal, Register, Wish
from windfall.cli.identity.signing import certified
from windfall.servicekit.journal import Journal

_KEY: Final = "register"


class Registrar:
    """
    Args:
        journal: where the register is kept.
        authority: signs.
        lasts: how long a site's certificate is good for.
        automatic: whoever has a token is admitted, and nobody need approve.
        apply: makes the hub's doors go by a register.
        now: wall time.
        own: public nkeys of the hub's services, by service.
    """

    def __init__(
        self,
        journal: Journal,
        authority: Signed,
        lasts: timedelta,
        automatic: bool,
        apply: Callable[[Register], Awaitable[None]],
        now: Callable[[], datetime],
        own: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._journal, self._authority, self._lasts = journal, authority, lasts
        self._automatic, self._apply, self._now, self._own = automatic, apply, now, own
        self.register = journal.load(_KEY, Register) or Register()
        self._changed = asyncio.Event()
        self._applying = asyncio.Lock()

    async def begin(self) -> None:
        """Make the doors go by what was decided before."""
        await self._apply(self.register)

    async def token(self, site: str, lasts: timedelta, tenant: str, owner: str | None) -> str:
        """A one-time token as it is carried. Its secret is kept nowhere here.

        Raises:
            Refusal: there is no such tenant, or the site is another's.
        """
        made = token.new(site, fingerprint(self._authority.certificate))
        await self._commit(decisions.give_token(self.register, site, made.digest, self._now(), lasts, tenant, owner))
        return made.written()

    async def let_in(self, name: str, guest: Guest) -> None:
        """
        Raises:
            Refusal: it cannot be had.
        """
        await self._commit(tenants.let_in(self.register, name, guest, self._own, self._now()))

    async def let_go(self, name: str) -> None:
        """
        Raises:
            Refusal: there is none, or it has sites.
        """
        await self._commit(tenants.let_go(self.register, name, self._now()))

    async def lend(self, lent: Lent, *, ends: bool) -> None:
        """
        Raises:
            Refusal: it cannot be lent.
        """
        await self._commit(tenants.lend(self.register, lent, self._now(), ends=ends))

    async def enrol(self, wish: Wish, secret: bytes, theirs: datetime) -> AsyncIterator[tuple[Certified, ...] | None]:
        """The site's certificates; before them none, when somebody must approve first.

        Raises:
            Refusal: the token or the wish does not hold.
        """
        self._certify(wish)
        told = False
        while True:
            changed = self._changed
            after, admissible = decisions.ask(
                self.register,
                wish,
                token.digest(secret),
                self._now(),
                theirs if not told else self._now(),
                automatic=self._automatic,
            )
            if after is not self.register:
                await self._commit(after)
                continue
            if admissible:
                yield await self._admitted(wish)
                return
            if not told:
                told = True
                yield None
            await changed.wait()

    async def approve(self, site: str) -> None:
        """
        Raises:
            Refusal: it does not wait.
        """
        await self._commit(decisions.approve(self.register, site, self._now()))

    async def revoke(self, site: str, reason: str) -> None:
        """
        Raises:
            Refusal: there is no such site.
        """
        await self._commit(decisions.revoke(self.register, site, reason, self._now()))

    async def renew(self, certificate: bytes, request: bytes, signature: bytes) -> Certified:
        """A certificate for a new key of whoever holds the one that is shown.

        Raises:
            Refusal: that certificate does not count, or the request is not its holder's.
        """
        try:
            shown = x509.load_der_x509_certificate(certificate)
            key = shown.public_key()
            assert isinstance(key, ec.EllipticCurvePublicKey), "nothing else is signed here"
            shown.verify_directly_issued_by(self._authority.certificate)
            key.verify(signature, request, ec.ECDSA(hashes.SHA256()))
        except (ValueError, TypeError, AssertionError, InvalidSignature) as error:
            raise Refusal(
                Cause.CERTIFICATE, "whoever asks does not hold the certificate that it shows", "Join with a token"
            ) from error
        site, before = decisions.holder(self.register, f"{shown.serial_number:x}", self._now())
        made = self._signed(request, site, before.service)
        await self._commit(decisions.renewed(self.register, site, made, self._now()))
        return made

    async def _admitted(self, wish: Wish) -> tuple[Certified, ...]:
        member = self.register.members.get(wish.site)
        if member is None or member.wish.keys != wish.keys:
            made = self._certify(wish)
            await self._commit(decisions.admit(self.register, wish.site, made, self._now()))
            return made
        return member.certificates

    def _certify(self, wish: Wish) -> tuple[Certified, ...]:
        return tuple(self._signed(b64decode(text), wish.site, service) for service, text in wish.requests.items())

    def _signed(self, request: bytes, site: str, service: str) -> Certified:
        made = certified(request, site, service, self._authority, self._now(), self._lasts)
        der = b64encode(made.public_bytes(serialization.Encoding.DER)).decode()
        return Certified(service=service, serial=f"{made.serial_number:x}", der=der, until=made.not_valid_after_utc)

    async def _commit(self, register: Register) -> None:
        self._journal.commit(state={_KEY: register})
        self.register = register
        async with self._applying:
            # Whatever was decided meanwhile is applied with it.
            await self._apply(self.register)
        self._changed.set()
        self._changed = asyncio.Event()
