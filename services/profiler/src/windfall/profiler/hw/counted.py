"""One reading of all devices, in vendors' names."""

from pydantic import BaseModel, ConfigDict, Field


class Counted(BaseModel):
    """What ``child/counters.py`` says in one line, or an exporter on one page."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    at_s: float | None = None
    """The machine's monotonic clock."""
    devices: dict[str, dict[str, float]] = Field(default_factory=dict)
    """``nvidia.0`` → name → value, in the vendor's unit."""
    lost: dict[str, str] = Field(default_factory=dict)
    missing: dict[str, str] = Field(default_factory=dict)
    """Software that does not answer → why."""
