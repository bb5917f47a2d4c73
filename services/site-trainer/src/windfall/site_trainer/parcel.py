"""A contribution on its way: what was trained, as bytes, with the manifest that goes before them."""

from collections.abc import Mapping
from dataclasses import dataclass

from windfall.contracts.v1 import training_pb2 as pb
from windfall.lowcomm import compressor as compressors
from windfall.lowcomm.privatise import privatised
from windfall.site_trainer.coordinator import Membership, Noise, tensors_of
from windfall.site_trainer.engine import Engine
from windfall.site_trainer.replica import sha256
from windfall.site_trainer.session import Session
from windfall.tasks.ranges import Ranges

Unsent = Mapping[int, compressors.State]
"""What the codec did not get to say of each fragment of the model; of one that is missing, nothing."""


@dataclass(frozen=True)
class Parcel:
    """The same bytes, however often it sets out. The manifest names the last attempt."""

    manifest: pb.Manifest
    data: bytes
    attempt: int
    """Under which it was written."""
    unsent: Unsent
    """What the codec did not get to say, once this has arrived."""

    @property
    def rows(self) -> Ranges:
        """Of a shared corpus, on which it was trained."""
        return tuple((one.begin, one.end) for one in self.manifest.rows)


def written(
    engine: Engine,
    session: Session,
    membership: Membership,
    unsent: Unsent,
    key: pb.ContributionKey,
    lease_token: int,
    noise: Noise | None = None,
) -> Parcel:
    """Write down what was trained from the session's base, of the fragment whose turn it is; blocks.

    Args:
        unsent: what the codec did not get to say before; empty at the beginning of a membership.
        key: of the contribution.
        noise: that it is told with; its loss and what its steps met are then not told, for they follow from the data
            without any.

    Raises:
        ValueError: it is not finite.
    """
    rule, fragments, work = membership.rule, membership.rotation, session.work
    elements, turn = fragments.split(key.round), fragments.turn(key.round)
    gradient = engine.pseudo_gradient()[fragments.part(key.round)]
    if noise is not None:
        gradient = privatised(gradient, elements, noise.norm, noise.multiple)
    after, data = rule.encode(
        unsent.get(turn) or rule.codec.init(elements.trained),
        gradient,
        elements,
        base=key.round,
        tokens=work.tokens,
        steps=work.steps,
        codec=session.codec,
    )
    progress = engine.progress
    manifest = pb.Manifest(
        key=key,
        lease_token=lease_token,
        base_digest=session.base_digest,
        codec=session.codec or rule.codec.name,
        tokens=work.tokens,
        steps=work.steps,
        loss=0.0 if noise else round(work.loss_nats, 2),
        total_bytes=len(data),
        sha256=sha256(data),
        tensors=tensors_of(membership.layout),
        skipped=0 if noise else progress.skipped,
        spikes=0 if noise else progress.spikes,
        refused_passes=progress.refused,
        cursor=progress.cursor,
        rows=[pb.RowRange(begin=begin, end=end) for begin, end in progress.rows],
    )
    return Parcel(manifest, data, membership.attempt, {**unsent, turn: after})
