"""What codecs cost: bits, seconds and memory, on the pseudo-gradients of a real model of 10 M parameters."""

import os
import time
from collections.abc import Callable
from math import comb, log2
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from tests.bench.figures import Figure
from tests.bench.lowcomm_data import text_folders
from tests.bench.lowcomm_run import Workshop
from tests.bench.processes import peak_resident, resident
from windfall.lowcomm.compressor import State
from windfall.lowcomm.layout import Split, layout_of_model
from windfall.lowcomm.mergedform import merged_form
from windfall.lowcomm.outerlog import Accepted, smallest
from windfall.lowcomm.positions import gaps_of
from windfall.lowcomm.rule import Rule, Said
from windfall.lowcomm.sections import squeeze
from windfall.lowcomm.sparse import Sparse
from windfall.tasks.registry import load_task

SITES: Final = 3
_SELF: Final = os.getpid()
STEPS: Final = 2
BATCH: Final = 4
TIMES: Final = 7
BOUND_BITS: Final = log2(comb(4096, 64)) / 64
"""What no code of 64 uniform positions among 4096 can stay under, per position."""
CODECS: Final = ("bf16", "int8-block", "int4-block", "q2-ef", "topk-ef", "dct-momentum")


def figures(folder: Path) -> list[Figure]:
    gradients, base = _gradients(folder)
    elements = Split(len(base))
    rule = Rule.parse("topk-ef")
    messages, states = _second_round(rule, gradients, elements)
    said = [Said(f"site-{site}", 1, 1.0, rule.decode(message, elements)[1]) for site, message in enumerate(messages)]
    up = sum(map(len, messages))
    down = _down(rule, said, messages, elements)
    encode = {codec: _encode_rate(Rule.parse(codec), gradients[0], elements) for codec in CODECS}
    decode = {codec: _decode_rate(Rule.parse(codec), gradients, elements) for codec in CODECS}
    conditions = f"gpt-neox 10m, {len(base) / 1e6:.1f} M parameters, {STEPS} steps, second round"
    return [
        Figure(
            "bits per parameter up",
            up * 8 / SITES / len(base),
            "bit",
            "at most 0.15",
            {"fp32": 32, "SparseLoCo's published wire": 0.219},
            f"topk-ef, header included; {conditions}",
        ),
        Figure(
            "index coding over entropy bound %",
            (_index_bits(said) / BOUND_BITS - 1) * 100,
            "%",
            "at most 5",
            {"bits per position": _index_bits(said), "bound for uniform ones": BOUND_BITS},
            conditions,
        ),
        Figure(
            "bytes against study",
            SITES * 2 * 4 * len(base) / (up + down),
            "x fewer",
            "at least 100",
            {"MB a site, up": up / SITES / 1e6, "down": down / SITES / 1e6, "study, each way": len(base) * 4e-6},
            f"whole rounds up and down, {SITES} sites, against the full fp32 state both ways; {conditions}",
        ),
        Figure(
            "encode M parameters/s", encode["topk-ef"], "M/s", "at least 50", _others(encode), f"one core; {conditions}"
        ),
        Figure(
            "decode M parameters/s",
            decode["topk-ef"],
            "M/s",
            "at least 150",
            _others(decode),
            f"decode and merge of {SITES} contributions, parameters of each counted, one core; {conditions}",
        ),
        _memory(rule, gradients, states[0], elements),
    ]  # fmt: skip


def _gradients(folder: Path) -> tuple[list[Tensor], Tensor]:
    """Base − local of each site after a few steps, and the base."""
    task = load_task("gpt-neox", '{"preset": "10m"}')
    layout = layout_of_model(task.model(0))
    folders, _ = text_folders(folder, SITES, "iid")
    found = []
    for site, place in enumerate(folders):
        shop, loader = Workshop(task, layout, 0), task.loader(place, site)
        base = shop.read().clone()
        for _ in range(STEPS):
            shop.step([loader], BATCH, 0)
        found.append(base - shop.read())
    return found, base


def _second_round(rule: Rule, gradients: list[Tensor], elements: Split) -> tuple[list[bytes], list[State]]:
    """Messages that have the first round's rest to say too."""
    messages, states = [], []
    for gradient in gradients:
        state = rule.codec.init(elements.trained)
        for number in range(2):
            before = state
            state, message = rule.encode(state, gradient, elements, base=number, tokens=1, steps=STEPS)
        messages.append(message)
        states.append(before)
    return messages, states


def _down(rule: Rule, said: list[Said], messages: list[bytes], elements: Split) -> int:
    """Bytes down to all sites: each gets what the others said, or what all said together."""
    accepted = [Accepted.of(one.site, 1, 1.0, message) for one, message in zip(said, messages, strict=True)]
    merged = merged_form(rule.merge(said, elements), elements)
    return sum(len(smallest(1, "0" * 64, "0" * 64, accepted, merged, held={one.sha256})) for one in accepted)


def _index_bits(said: list[Said]) -> float:
    sent = [part for one in said for part in one.parts if isinstance(part, Sparse)]
    return sum(8 * len(squeeze(gaps_of(one.positions).data)) / len(one.positions) for one in sent) / len(sent)


def _encode_rate(rule: Rule, gradient: Tensor, elements: Split) -> float:
    state = rule.codec.init(elements.trained)
    return elements.trained / 1e6 / _seconds(lambda: rule.encode(state, gradient, elements, base=0, tokens=1, steps=1))


def _decode_rate(rule: Rule, gradients: list[Tensor], elements: Split) -> float:
    state = rule.codec.init(elements.trained)
    messages = [rule.encode(state, each, elements, base=0, tokens=1, steps=1)[1] for each in gradients]

    def merge() -> None:
        rule.merge(
            [Said(f"site-{at}", 1, 1.0, rule.decode(each, elements)[1]) for at, each in enumerate(messages)], elements
        )

    return len(messages) * elements.trained / 1e6 / _seconds(merge)


def _memory(rule: Rule, gradients: list[Tensor], state: State, elements: Split) -> Figure:
    """What a site needs beyond its model, gradient and error feedback, and a coordinator beyond its base."""
    size = elements.trained * 4
    messages = [rule.encode(state, each, elements, base=0, tokens=1, steps=1)[1] for each in gradients]
    base = torch.zeros(elements.trained)

    def commit() -> None:
        said = [Said(f"site-{at}", 1, 1.0, rule.decode(each, elements)[1]) for at, each in enumerate(messages)]
        rule.step((), base, rule.merge(said, elements), elements)

    encode = _beyond(lambda: rule.encode(state, gradients[0], elements, base=0, tokens=1, steps=1)) / size
    return Figure(
        "codec memory x model",
        max(encode, _beyond(commit) / size),
        "x model",
        "at most 2",
        {"encode": encode, "decode, merge and step": _beyond(commit) / size},
        "topk-ef, at the peak, beyond what was there; the new error feedback, or the new base, is one of it",
    )


def _beyond(call: Callable[[], object]) -> int:
    """Bytes of resident memory at a call's peak beyond those before it."""
    call()
    before = resident(_SELF)
    Path("/proc/self/clear_refs").write_text("5")
    call()
    return peak_resident(_SELF) - before


def _seconds(call: Callable[[], object]) -> float:
    """Core-seconds of the fastest call: what else the machine does counts little."""
    call()
    times = []
    for _ in range(TIMES):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return min(times)


def _others(rates: dict[str, float]) -> dict[str, float | str]:
    return {codec: rate for codec, rate in rates.items() if codec != "topk-ef"}
