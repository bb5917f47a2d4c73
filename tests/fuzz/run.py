"""One parser and thousands of inputs: what each came to, in a process of its own."""

import gc
import hashlib
import json
import logging
import os
import random
import re
import resource
import signal
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from types import CodeType, FrameType
from typing import Any, Final

from tests.fuzz.mutation import mutated
from tests.fuzz.target import Target, clean_up

CORPUS: Final = Path(__file__).parent / "corpus"
DEADLINE_S: Final = 2.0
"""Of processor time, for one input."""
MOST_MIB: Final = 64.0
"""By which a process may grow while it reads all of them."""
_MOST_KEPT: Final = 400
"""Inputs that others are made of."""
_LOOKED_AT: Final = 8
"""Of so many inputs one is traced: what reaches a line that none before has reached is kept."""


class TooSlow(BaseException):
    """An input took longer than the deadline."""


@dataclass
class Found:
    """What came of a parser's inputs."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    crashes: list[tuple[str, bytes]] = field(default_factory=list)
    """What was raised that is no refusal, and by which input; of each kind the first."""
    crashed: int = 0
    grown_mib: float = 0.0
    slowest_ms: float = 0.0


def kept(name: str) -> list[bytes]:
    """Inputs of a parser that were found before."""
    return [path.read_bytes() for path in sorted(_folder(name).glob("*"))]


def keep(name: str, data: bytes) -> Path:
    """Put an input beside those."""
    path = _folder(name) / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _folder(name: str) -> Path:
    return CORPUS / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def fuzzed(target: Target, inputs: int, seed: int) -> Found:
    """Give a parser its seeds, what was kept, and mutations of all of them; the same number and seed are the same
    inputs."""
    dice, found, kinds = random.Random(f"{target.name}/{seed}"), Found(), set[str]()
    pool = [*target.seeds(), *kept(target.name)]
    seen = set[tuple[CodeType, int]]()
    for data in pool:
        with _traced(seen):
            _outcome(target, data)
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(inputs):
        if number < len(pool) and number < inputs // 2:
            data = pool[number]
        else:
            data = mutated(dice.choice(pool), pool, dice)
            if target.mended is not None and dice.random() < 0.5:
                data = target.mended(data)
        found.inputs += 1
        known, begun = len(seen), process_time()
        if number % _LOOKED_AT:
            raised = _outcome(target, data)
        else:
            with _traced(seen):
                raised = _outcome(target, data)
            if len(seen) > known and len(pool) < _MOST_KEPT:
                pool.append(data)
        found.slowest_ms = max(found.slowest_ms, 1000 * (process_time() - begun))
        if raised is None:
            found.accepted += 1
        elif isinstance(raised, target.refusals) and not isinstance(raised, TooSlow):
            found.refused += 1
        else:
            found.crashed += 1
            kind = f"{type(raised).__name__} {_where(raised)}"
            if kind not in kinds:
                kinds.add(kind)
                found.crashes.append((f"{kind}: {raised}"[:300], data))
    found.grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return found


def _outcome(target: Target, data: bytes) -> BaseException | None:
    """What a parser raises of an input; none when it accepts it."""
    try:
        with _deadline(), _unlogged():
            target.parse(data)
    except (Exception, TooSlow) as error:  # noqa: BLE001 (what else it may be is what is looked for)
        return error
    return None


def outcome(target: Target, data: bytes) -> str:
    """How a parser misses its promise with an input; empty when it keeps it."""
    raised = _outcome(target, data)
    kept_it = raised is None or (isinstance(raised, target.refusals) and not isinstance(raised, TooSlow))
    return "" if kept_it else f"{type(raised).__name__} {_where(raised)}: {raised}"[:300]


def _where(raised: BaseException | None) -> str:
    trace = raised.__traceback__ if raised is not None else None
    place = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if "/windfall/" in code.co_filename:
            place = f"{code.co_filename.rpartition('/windfall/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


@contextmanager
def _deadline() -> Iterator[None]:
    """By the processor's time: how busy the machine is counts for nothing."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {DEADLINE_S:g} s")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, DEADLINE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def _unlogged() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _traced(seen: set[tuple[CodeType, int]]) -> Iterator[None]:
    """Remember which lines of the product are run."""

    def of_line(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            seen.add((frame.f_code, frame.f_lineno))
        return of_line

    def of_call(frame: FrameType, event: str, argument: Any) -> Any:
        return of_line if "/windfall/" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(of_call)
    try:
        yield
    finally:
        sys.settrace(before)


def aside(target: Target, inputs: int, seed: int) -> Found:
    """As ``fuzzed``, in a process of its own, whose growth is this parser's alone."""
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        code = 1
        try:
            found = fuzzed(target, inputs, seed)
            said = vars(found) | {"crashes": [(why, b64encode(data).decode()) for why, data in found.crashes]}
            with os.fdopen(writing, "w") as file:
                json.dump(said, file)
            code = 0
        finally:
            if code:
                sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            clean_up()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as file:
        answer = file.read()
    if os.waitpid(pid, 0)[1] or not answer:
        raise RuntimeError(f"the process that read {target.name} ended before its time")
    fields = json.loads(answer)
    return Found(**fields | {"crashes": [(why, b64decode(data)) for why, data in fields["crashes"]]})
