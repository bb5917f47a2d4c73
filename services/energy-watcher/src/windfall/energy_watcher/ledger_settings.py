"""What the watcher is told of its ledger. Durations are in business time."""

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, Json, model_validator

from windfall.contracts.message import Instant
from windfall.energy.intensity import WORLD_G_PER_KWH
from windfall.energy.power import PowerModel
from windfall.energy.signals import MOST_G_PER_KWH
from windfall.energy_watcher.prometheus_meter import PrometheusMeterSection
from windfall.servicekit.settings import SiteSettings

_POWER = PowerModel()


class BookkeeperSettings(SiteSettings):
    """How the site's energy is metered or modelled, and how it is kept."""

    ledger_interval: timedelta = Field(default=timedelta(minutes=15), gt=timedelta(0))
    """The longest entry while power is drawn."""
    ledger_federation: str = Field(default="", max_length=200)
    """The federation or run that the ledger is kept for; its first record names it."""
    ledger_since: Instant | None = None
    """From when on a new ledger accounts, if that is past; none: from now. A rehearsal begins with its trace."""
    ledger_key_file: Path | None = None
    """Ed25519 private key in PEM (PKCS #8) that signs the ledger. None: ``site.key`` in the state folder, made when it
    is not there."""
    ledger_assumed_intensity: float = Field(default=WORLD_G_PER_KWH, ge=0, le=MOST_G_PER_KWH)
    """gCO2/kWh, taken where no reading is known or believed, unless the last one was dirtier."""
    meter: Literal["auto", "none", "nvml", "rapl", "prometheus"] = "auto"
    """What meters the node. ``auto``: the GPUs of this machine, and its processors beside them; none without GPUs. In a
    replay nothing is metered, because its hours are not the machine's."""
    meter_prometheus: Json[PrometheusMeterSection] | None = None
    """``prometheus``: where to ask, and for what, as JSON: ``{"url": "https://…", "query": "…", "unit": "J"}``."""
    meter_interval: timedelta = Field(default=timedelta(minutes=1), gt=timedelta(0))
    """How often the meter is read between changes of state."""
    power_idle_kw: float = Field(default=_POWER.idle_kw, ge=0)
    """Of the modelled node: up, and not training."""
    power_training_kw: float = Field(default=_POWER.training_kw, ge=0)
    """Training; also the power of the always-on counterfactual."""
    power_provisioning_kw: float = Field(default=_POWER.provisioning_kw, ge=0)
    """Between the order for a node and its first sign of life."""
    power_draining_kw: float = Field(default=_POWER.draining_kw, ge=0)
    """Finishing the step and delivering what was trained."""

    @model_validator(mode="after")
    def _metered(self) -> Self:
        if self.meter == "prometheus" and self.meter_prometheus is None:
            raise ValueError("WINDFALL_METER_PROMETHEUS is missing and WINDFALL_METER is prometheus")
        return self

    @property
    def power(self) -> PowerModel:
        return PowerModel(
            idle_kw=self.power_idle_kw,
            training_kw=self.power_training_kw,
            provisioning_kw=self.power_provisioning_kw,
            draining_kw=self.power_draining_kw,
        )
