"""The state of the random numbers that Flower's strategies and apps draw: kept, so that a replay draws the same ones.

``random`` picks the nodes, ``numpy.random`` makes the noise of differential privacy, torch initialises models. They are
kept as they are and never seeded here: an app that seeds them finds what it seeded, and noise stays as unpredictable as
it was. What is kept stays in the coordinator's own journal.
"""

import base64
import random
import sys
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict


class Randomness(BaseModel):
    """The three generators at one moment."""

    model_config = ConfigDict(frozen=True)

    python: tuple[int, tuple[int, ...], float | None]
    numpy_key: str
    """Base64 of 624 little-endian uint32."""
    numpy_position: int
    numpy_has_gauss: int
    numpy_gauss: float
    torch: str | None
    """Base64 of torch's CPU generator; none while torch is not loaded."""


def captured() -> Randomness:
    """The generators as they stand."""
    state: Any = np.random.get_state(legacy=False)
    torch = sys.modules.get("torch")
    version, internal, gauss = random.getstate()
    return Randomness(
        python=(version, internal, gauss),
        numpy_key=base64.b64encode(state["state"]["key"].astype("<u4").tobytes()).decode(),
        numpy_position=state["state"]["pos"],
        numpy_has_gauss=state["has_gauss"],
        numpy_gauss=state["gauss"],
        torch=base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode() if torch else None,
    )


def restore(kept: Randomness) -> None:
    """Put the generators back to where they stood."""
    random.setstate(kept.python)
    key = np.frombuffer(base64.b64decode(kept.numpy_key), "<u4")
    np.random.set_state(("MT19937", key, kept.numpy_position, kept.numpy_has_gauss, kept.numpy_gauss))
    if kept.torch is not None:
        import torch

        torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(kept.torch)), dtype=torch.uint8))
