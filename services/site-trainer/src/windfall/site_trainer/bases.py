"""How a site comes by the base of a round: it holds it, makes it from what the others said, or downloads it."""

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from windfall.servicekit.errors import Transient
from windfall.servicekit.offload import Offload
from windfall.site_trainer.coordinator import CoordinatorLink, Membership

if TYPE_CHECKING:
    from windfall.site_trainer.parcel import Parcel
    from windfall.site_trainer.replica import Replica

log = logging.getLogger(__name__)

T = TypeVar("T")


class Train(Protocol):
    """Runs what needs the node's memory beside the event loop, and says in one line when there is no room."""

    def __call__(self, work: Callable[..., T], /, *arguments: object) -> Awaitable[T]: ...


class Bases:
    """The newest base of one site, and what leads to the next.

    Args:
        path: where the base is kept for the site's next trainer; none keeps it nowhere.
    """

    def __init__(self, link: CoordinatorLink, path: Path | None, offload: Offload, train: Train) -> None:
        self._link = link
        self._path = path
        self._offload = offload
        self._train = train
        self._remembering = path is not None
        self._own: dict[str, bytes] = {}
        self.replica: Replica | None = None
        """What is held; none before the first, or since the rule has changed."""

    def said(self, parcel: "Parcel") -> None:
        """This contribution counts: the log need not repeat it."""
        self._own = {parcel.manifest.sha256: parcel.data}

    async def fetch(self, membership: Membership, digest: str, model_bytes: int) -> "Replica":
        """The base with this digest.

        Raises:
            Transient: try again; a log that lies leads to a full download then.
            Refused: as ``CoordinatorLink.pull``.
        """
        # Only now: it needs torch, which is not there yet when the trainer joins.
        from windfall.site_trainer.replica import follow, kept, of_snapshot, snapshot_bytes

        rule, fragments = membership.rule, membership.rotation
        if self._remembering and self._path is not None:
            # Once: what has led nowhere is not gone on from again.
            self._remembering = False
            self.replica = await self._offload(kept, self._path, rule, fragments)
        held = self.replica
        if held is not None and held.digest == digest:
            return held
        download = await self._link.pull(
            membership.attempt,
            digest,
            model_bytes,
            snapshot_bytes(rule, fragments),
            held=held.digest if held is not None and fragments.followed(rule) else "",
            own=next(iter(self._own), ""),
        )
        # A base that is downloaded whole takes the place of the one before: there is room for one.
        self.replica = None
        if held is None or not download.log:
            self.replica = await self._offload(of_snapshot, download.data, digest, rule, fragments)
            return self.replica
        try:
            self.replica = await self._train(follow, held, download.data, digest, rule, fragments, self._own)
        except ValueError as error:
            log.error("the outer log does not lead to the base: %s", error)
            raise Transient("downloading the base in full") from error
        return self.replica

    async def keep(self, membership: Membership | None) -> None:
        """So that the site's next trainer may follow the outer log from here, instead of downloading a model."""
        if self._path is None or self.replica is None or membership is None:
            return
        if not membership.rotation.followed(membership.rule):
            return
        from windfall.site_trainer.replica import keep

        try:
            await self._offload(keep, self.replica, membership.rule, self._path)
        except OSError as error:
            log.error("the base is not kept: %s. The next trainer downloads it", error)
