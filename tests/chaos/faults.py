"""What may happen to a fleet, and when: drawn from a seed, or read back from text."""

import random
from dataclasses import dataclass
from typing import Final

from windfall.federation_coordinator.crashpoints import POINTS as OF_COORDINATOR
from windfall.provisioner.crashpoints import POINTS as OF_PROVISIONER
from windfall.servicekit.crashpoint import KIT
from windfall.site_trainer.crashpoints import POINTS as OF_TRAINER

SITES: Final = ("site-a", "site-b")
BEGINS_H: Final = 0.2
ENDS_H: Final = 2.7
"""Faults begin between these hours of the day. What broke is whole again 36 minutes after the last may begin."""

KINDS: Final = {
    "crash before write": "a service dies when it is about to commit; nothing of that decision is kept",
    "crash after write": "a service dies when it has committed, before anything follows from it",
    "crash": "a service dies at an instant",
    "crash at await": "a service dies where one of its tasks goes on after it has waited",
    "crash at point": "whichever service comes by a named place between two writes dies there",
    "disk full": "what a service wants to commit or to write into a file is refused, until there is room",
    "rot": "a bit flips in a file, and whose it is starts again",
    "cut off": "a site has no link to the hub: neither events nor gRPC",
    "rpc cut": "a site's gRPC connection breaks, and can be made again at once",
    "slow link": "what a site says over gRPC takes half a minute, message by message",
    "garbled": "bytes of models and contributions flip on a site's link",
    "server down": "a NATS server is away, and comes back with its store",
    "store lost": "a NATS server comes back without its store",
    "ack lost": "a server stores what a service says and does not say so",
    "loss": "what a service says does not arrive",
    "duplicates": "what a service says is stored twice under different message ids",
    "delay": "what a service says is a minute late, and others overtake it",
    "replay": "everything that a site ever said comes once more, backwards",
    "nonsense": "somebody says what is no sentence",
    "clock step": "a machine's clock is set forward or back, and right again later",
    "bad signal": "who publishes a site's signal is silent, refuses, repeats itself, or says what cannot be",
}
"""Each kind of fault, in one sentence."""

SERVICES: Final = ("energy-watcher", "provisioner", "profiler", "site-trainer", "federation-coordinator")
_NEVER_HERE: Final = ("export.", "evaluation.", "kubernetes.", "checkpoint.")
"""No model is exported or evaluated, no cluster is there, and a toy's checkpoint is no file of tensors."""
POINTS: Final = tuple(
    point
    for points in (OF_COORDINATOR, OF_PROVISIONER, OF_TRAINER, KIT)
    for point in points
    if not point.startswith(_NEVER_HERE)
)
BAD_SIGNALS: Final = ("silent", "hanging", "revoked", "absurd", "not a number", "stale", "ahead", "unforeseen")
_STEPS_MIN: Final = (-40, -11, -3, -1, 1, 3, 11, 40)
_AWAITS: Final = (1, 3, 10, 30, 100, 300)
_OF_A_SERVER: Final = ("server down", "store lost", "clock step")
_OF_A_SITE: Final = ("cut off", "rpc cut", "slow link", "garbled", "replay", "nonsense", "bad signal")


@dataclass(frozen=True)
class Fault:
    """One thing that happens.

    Attributes:
        at_h: hour of the day.
        kind: of ``KINDS``.
        service: whose; empty where it is no service's.
        place: a site, or the hub.
        lasts_min: until it is whole again, or the service is started again.
        count: the how-many-eth write, await, or time at a point; of ten messages how many; minutes of a clock.
        point: of ``POINTS`` or ``BAD_SIGNALS``.
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
        which = f" ({self.point})" if self.point else ""
        return f"{self.at_h:.2f} h: {self.kind}{which}{whose} {self.place} ({self.count}, {self.lasts_min:.0f} min)"


def drawn(seed: int) -> tuple[Fault, ...]:
    """A schedule: from one fault to eight, of any kinds, at any instants, in order."""
    dice = random.Random(seed)
    return tuple(sorted((_one(dice) for _ in range(dice.randint(1, 8))), key=lambda fault: fault.at_h))


def _one(dice: random.Random) -> Fault:
    kind, service, point = dice.choice(list(KINDS)), "", ""
    place, count = dice.choice(SITES), dice.randint(1, 6)
    if kind in _OF_A_SERVER:
        place = dice.choice(("hub", *SITES))
    elif kind == "crash at point":
        place, point = "wherever", dice.choice(POINTS)
    elif kind == "rot":
        service = dice.choice(("site-trainer", "federation-coordinator"))
    elif kind not in _OF_A_SITE:
        service = dice.choice(SERVICES)
    if service == "federation-coordinator":
        place = "hub"
    if kind == "clock step":
        count = dice.choice(_STEPS_MIN)
    elif kind == "crash at await":
        count = dice.choice(_AWAITS)
    elif kind == "bad signal":
        point = dice.choice(BAD_SIGNALS)
    at_h, lasts_min = dice.uniform(BEGINS_H, ENDS_H), dice.choice((0.1, 1.0, 5.0, 12.0, 30.0))
    return Fault(round(at_h, 4), kind, service, place, lasts_min, count, point)
