"""A session in the heartbeat's words: what a site says of itself, and what the coordinator answers."""

from windfall.contracts.v1 import training_pb2 as pb
from windfall.site_trainer import overlapping
from windfall.site_trainer.session import Opening, Session
from windfall.site_trainer.terms import Terms


def beat(terms: Terms, attempt: int, session: Session) -> pb.Beat:
    """How far a site is, for who waits for its contribution."""
    number, work = overlapping.way(session)
    return pb.Beat(
        federation=terms.federation,
        site=terms.site,
        attempt=attempt,
        round=number,
        steps=work.steps,
        tokens=work.tokens,
        state=pb.SITE_STATE_TRAINING if work.steps else pb.SITE_STATE_IDLE,
    )


def opening(word: pb.RoundOpened) -> Opening:
    """A round that was opened, as the session knows it."""
    return Opening(
        word.round,
        word.base_digest,
        word.base_bytes,
        word.local_steps,
        word.micro_batch,
        word.tokens,
        word.sites,
        word.codec,
        word.accumulation,
        word.precision,
    )
