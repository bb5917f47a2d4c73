"""``WINDFALL_KUBE_NEED``: what a site needs of the machines of its cluster."""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from windfall.contracts.jurisdiction import Jurisdiction
from windfall.provisioner.placement.gpus import Interconnect
from windfall.provisioner.placement.need import Arrangement, Pool


class NodeNeed(BaseModel):
    """What a worker needs of the node that it is placed on, beside the processors, memory and GPUs that its pod asks
    for. Whatever is left out does not matter."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gpus: int | None = Field(default=None, ge=0, le=64)
    """Of each worker, all on one node; ``WINDFALL_KUBE_ACCELERATORS`` by another name."""
    models: tuple[str, ...] = ()
    """Any of these, by any name of theirs."""
    gpu_memory_bytes: int = Field(default=0, ge=0)
    """Of each GPU, at least."""
    interconnects: frozenset[Interconnect] = frozenset()
    """How the GPUs of one node reach each other: one of these."""
    interconnect_gb_per_s: float = Field(default=0, ge=0)
    """Between GPUs of one node, as the profiler measured it, at least."""
    samples_per_s: float = Field(default=0, ge=0)
    """Of one node, as the profiler measured it, at least."""
    jurisdictions: tuple[Jurisdiction, ...] = ()
    """Laws under which the data may be used: a site under none of them is never used."""
    arrangement: Arrangement = "pack"
    """On as few nodes as possible, or on as many (``spread``)."""
    pools: tuple[Pool, ...] = ()
    """Only nodes of one of these."""

    @property
    def of_gpus(self) -> bool:
        """Whether it says anything of GPUs beside how many."""
        return bool(self.models or self.gpu_memory_bytes or self.interconnects or self.interconnect_gb_per_s)


def node_need(given: object) -> object:
    """
    Raises:
        ValueError: what is given as JSON is no need, in one line.
    """
    if not isinstance(given, str):
        return given
    try:
        return NodeNeed.model_validate_json(given)
    except ValidationError as error:
        raise ValueError("; ".join(_line(fault["loc"], fault["msg"]) for fault in error.errors())) from error


def _line(where: tuple[int | str, ...], message: str) -> str:
    return ": ".join(part for part in (".".join(map(str, where)), message.removeprefix("Value error, ")) if part)
