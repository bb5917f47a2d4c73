"""What a member has of the run: the model, the outer optimizer's state, and what its own codec still owes.

On disk it is one safetensors file. Nothing is ever unpickled.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from windfall.lowcomm.layout import Split, digest
from windfall.lowcomm.rule import Rule
from windfall.site_trainer.tensor_file import Unusable, read_whole, write_whole

FORMAT: Final = "windfall-collective/1"


@dataclass(frozen=True, eq=False)
class Holding:
    """A member at a boundary."""

    round: int
    """Boundaries passed."""
    tokens: int
    """What all members have trained on together."""
    base: Tensor
    """The model, fp32 ``[elements]``."""
    outer: tuple[Tensor, ...]
    """The outer optimizer's state, fp32 ``[trained]`` each."""
    feedback: tuple[Tensor, ...]
    """The codec's state, fp32 ``[trained]`` each: this member's alone, not part of the digest."""

    @cached_property
    def model_digest(self) -> str:
        """SHA-256 of the model, as :func:`windfall.lowcomm.layout.digest` takes it."""
        return digest(self.base)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything in which members are alike."""
        parts = (str(self.round), str(self.tokens), self.model_digest, *map(digest, self.outer))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def begin(rule: Rule, base: Tensor, split: Split) -> Holding:
    """Before the first round."""
    return Holding(0, 0, base, rule.init(split), rule.codec.init(split.trained))


def save(holding: Holding, path: Path, owner: Mapping[str, str]) -> None:
    """Write it: the file is the old one or the new one at any instant, and on disk when this returns.

    Raises:
        OSError: it could not be written; the old file is as it was.
    """
    about = {
        "format": FORMAT,
        "owner": dict(owner),
        "round": holding.round,
        "tokens": holding.tokens,
        "digest": holding.digest,
        "feedback": [digest(each) for each in holding.feedback],
    }
    tensors = {"base": holding.base}
    tensors |= {f"outer/{index}": each for index, each in enumerate(holding.outer)}
    tensors |= {f"feedback/{index}": each for index, each in enumerate(holding.feedback)}
    write_whole(path, tensors, {"about": json.dumps(about)})


def load(path: Path, owner: Mapping[str, str]) -> Holding | None:
    """Read what ``save`` wrote; none when there is no file.

    Raises:
        Unusable: it is damaged, or of another run.
    """
    try:
        metadata, tensors = read_whole(path)
    except FileNotFoundError:
        return None
    try:
        return _held(json.loads(metadata.get("about", "{}")), tensors, owner)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, StopIteration) as error:
        raise Unusable(f"what it says of itself cannot be read ({error!r})") from error


def _held(about: dict[str, Any], tensors: Mapping[str, Tensor], owner: Mapping[str, str]) -> Holding:
    if about.get("format") != FORMAT:
        raise Unusable(f"its format is {about.get('format')!r}, not {FORMAT!r}")
    if about["owner"] != owner:
        other = next(name for name in {**owner, **about["owner"]} if about["owner"].get(name) != owner.get(name))
        raise Unusable(f"its {other} is {about['owner'].get(other)!r}, not {owner.get(other)!r}")
    holding = Holding(
        about["round"], about["tokens"], tensors["base"], _slots(tensors, "outer"), _slots(tensors, "feedback")
    )
    if (holding.digest, [digest(each) for each in holding.feedback]) != (about["digest"], about["feedback"]):
        raise Unusable("its SHA-256 is not the one it names")
    return holding


def _slots(tensors: Mapping[str, Tensor], kind: str) -> tuple[Tensor, ...]:
    count = sum(name.startswith(f"{kind}/") for name in tensors)
    return tuple(tensors[f"{kind}/{index}"] for index in range(count))
