"""What may happen to a fleet, and when: drawn from a seed, or read back from text."""

import random
from dataclasses import dataclass
from typing import Final

SITES: Final = ("site-a", "site-b")
BEGINS_H: Final = 0.2
ENDS_H: Final = 4.3
"""Faults begin between these hours of the day. What broke is whole again an hour after the last may begin."""

KINDS: Final = {
    "crash before write": "a service dies when it is about to commit; nothing of that decision is kept",
    "crash after write": "a service dies when it has committed, before anything follows from it",
    "crash": "a service dies at any await",
    "crash at point": "the coordinator dies at a named place between two writes to its disk",
    "disk full": "what a service wants to commit is refused, until there is room",
    "cut off": "a site has no link to the hub: neither events nor gRPC",
    "rpc cut": "a site's gRPC connection breaks, and can be made again at once",
    "server down": "a NATS server is away, and comes back with its store",
    "store lost": "a NATS server comes back without its store",
    "ack lost": "a server stores what a service says and does not say so",
    "loss": "what a service says does not arrive",
    "duplicates": "what a service says is stored twice under different message ids",
    "delay": "what a service says is a minute late, and others overtake it",
    "replay": "everything that a site ever said comes once more, backwards",
    "nonsense": "somebody says what is no sentence",
}
"""Each kind of fault, in one sentence."""

SERVICES: Final = ("energy-watcher", "provisioner", "profiler", "site-trainer", "federation-coordinator")
POINTS: Final = (
    "file.written",
    "file.synced",
    "file.named",
    "file.whole",
    "join.admitted",
    "push.begun",
    "push.received",
    "push.sealed",
    "accept.checked",
    "accept.journaled",
    "finish.journaled",
    "leave.journaled",
    "merge.begun",
    "merge.stepped",
    "merge.done",
    "merge.journaled",
    "prune.removed",
)
_OF_A_SERVER: Final = ("server down", "store lost")
_OF_A_LINK: Final = ("cut off", "rpc cut", "replay", "nonsense")


@dataclass(frozen=True)
class Fault:
    """One thing that happens.

    Attributes:
        at_h: hour of the day.
        kind: of ``KINDS``.
        service: whose; empty where it is no service's.
        place: a site, or the hub.
        lasts_min: until it is whole again, or the service is started again.
        count: the how-many-eth write, the how-many-eth time at a point, or of ten messages how many.
        point: of ``POINTS``.
    """

    at_h: float
    kind: str
    service: str
    place: str
    lasts_min: float
    count: int = 1
    point: str = ""

    def __str__(self) -> str:
        whose = f" of {self.service}" if self.service else ""
        where = f" at {self.point}" if self.point else ""
        return f"{self.at_h:.2f} h: {self.kind}{where}{whose} {self.place} ({self.count}, {self.lasts_min:.0f} min)"


def drawn(seed: int) -> tuple[Fault, ...]:
    """A schedule: from one fault to eight, of any kinds, at any instants, in order."""
    dice = random.Random(seed)
    return tuple(sorted((_one(dice) for _ in range(dice.randint(1, 8))), key=lambda fault: fault.at_h))


def _one(dice: random.Random) -> Fault:
    kind, service, point = dice.choice(list(KINDS)), "", ""
    place = dice.choice(SITES)
    if kind in _OF_A_SERVER:
        place = dice.choice(("hub", *SITES))
    elif kind == "crash at point":
        service, place, point = "federation-coordinator", "hub", dice.choice(POINTS)
    elif kind not in _OF_A_LINK:
        service = dice.choice(SERVICES)
        place = "hub" if service == "federation-coordinator" else place
    at_h, lasts_min = dice.uniform(BEGINS_H, ENDS_H), dice.choice((0.1, 1.0, 5.0, 12.0, 30.0))
    return Fault(round(at_h, 4), kind, service, place, lasts_min, dice.randint(1, 6), point)
