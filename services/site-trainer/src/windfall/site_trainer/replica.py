"""The base that a site holds, kept so that the next one need not be downloaded: it follows from what the sites said."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from windfall.lowcomm import outer as outers
from windfall.lowcomm.codec import Buffer
from windfall.lowcomm.layout import FLOAT32_BYTES, digest
from windfall.lowcomm.outerlog import Diverged, read, replay
from windfall.lowcomm.rotation import Rotation, rotation
from windfall.lowcomm.rule import Rule, Split
from windfall.site_trainer.tensor_file import Unusable, read_whole, write_whole

log = logging.getLogger(__name__)

_FORMAT: Final = "windfall-replica/1"
_BASE: Final = "base"


@dataclass(frozen=True, eq=False)
class Replica:
    """A base, fp32 ``[elements]``, and the outer optimizer's state that belongs to it: none where the rule is not
    followed, because then every base is downloaded whole. ``elements`` is a model, or its fragments in turn, all over
    this file."""

    digest: str
    base: Tensor
    states: outers.State


def snapshot_bytes(rule: Rule, elements: Split | Rotation) -> int:
    """Of a full download: the model, and behind it the outer optimizer's state where the rule is followed."""
    fragments = rotation(elements)
    return FLOAT32_BYTES * (fragments.model.elements + sum(_sizes(rule, fragments)))


def of_snapshot(data: memoryview, model_digest: str, rule: Rule, elements: Split | Rotation) -> Replica:
    """The replica in a full download, whose model has been held against its digest. It takes the memory over."""
    flat = torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32, copy=False))
    fragments = rotation(elements)
    base, *states = torch.split(flat, [fragments.model.elements, *_sizes(rule, fragments)])
    return Replica(model_digest, base, tuple(states))


def follow(
    replica: Replica,
    entries: Buffer,
    model_digest: str,
    rule: Rule,
    elements: Split | Rotation,
    own: Mapping[str, Buffer],
) -> Replica:
    """Take the outer steps of a log.

    Raises:
        ValueError: it is not a log, or does not lead from this base to the one with that digest: download in full.
    """
    states, base = replay(rule, elements, replica.states, replica.base, read(entries, elements), own)
    if (reached := digest(base)) != model_digest:
        raise Diverged(f"the log leads to {reached[:12]}, not to {model_digest[:12]}")
    return Replica(model_digest, base, states)


def keep(replica: Replica, rule: Rule, path: Path) -> None:
    """Write it down for the next trainer of this site: whole or not at all.

    Raises:
        OSError: it could not be written.
    """
    tensors = {_BASE: replica.base.contiguous()} | {
        f"outer-{slot}": state.contiguous() for slot, state in enumerate(replica.states)
    }
    write_whole(path, tensors, {"format": _FORMAT, "digest": replica.digest, "rule": repr(rule.settings)})


def kept(path: Path, rule: Rule, elements: Split | Rotation) -> Replica | None:
    """What an earlier trainer of this site wrote down; none when there is nothing that can be gone on from."""
    try:
        about, tensors = read_whole(path)
    except FileNotFoundError:
        return None
    except (Unusable, OSError) as error:
        log.warning("held base %s left aside: %s", path, error)
        return None
    if (about.get("format"), about.get("rule")) != (_FORMAT, repr(rule.settings)):
        return None
    base = tensors.get(_BASE, torch.empty(0))
    states = tuple(tensors[f"outer-{slot}"] for slot in range(len(tensors) - 1) if f"outer-{slot}" in tensors)
    fragments = rotation(elements)
    expected = [(size,) for size in (fragments.model.elements, *fragments.sizes(rule.outer))]
    fits = [tuple(vector.shape) for vector in (base, *states)] == expected
    fits = fits and all(vector.dtype == torch.float32 for vector in (base, *states))
    if not fits or digest(base) != about.get("digest"):
        log.warning("held base %s left aside: it is damaged or another model's", path)
        return None
    return Replica(about["digest"], base, states)


def _sizes(rule: Rule, fragments: Rotation) -> tuple[int, ...]:
    return fragments.sizes(rule.outer) if fragments.followed(rule) else ()


def sha256(data: Buffer) -> str:
    """In lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()
