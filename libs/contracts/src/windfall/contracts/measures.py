"""What a measurement is made of: how sure it is, and in which type of number."""

from typing import Literal

from pydantic import Field

from windfall.contracts.hardware import Part

Dtype = Literal["fp32", "tf32", "fp16", "bf16", "int8", "fp8"]
"""What matrices are multiplied in; ``fp8`` is e4m3."""


class Interval(Part):
    """Where a measured value lies with 95 % confidence, in the value's own unit."""

    low: float
    high: float
    runs: int = Field(ge=1)
    """From how many it was estimated."""
