"""What a gang asks for."""

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated

from windfall.provisioner.placement.gpus import Interconnect, Vendor
from windfall.provisioner.placement.nodes import Toleration

Arrangement = Literal["pack", "spread"]


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Pool:
    """Nodes of one kind that a site lends. Whatever is empty says nothing."""

    name: str
    node_selector: Mapping[str, str] = field(default_factory=dict)
    """Labels that they have."""
    vendor: Vendor | None = None
    model: str = ""
    """Of their GPUs, by any name."""
    count: int | None = None
    """GPUs that are lent at most, or nodes where no vendor is said; none: all that there are."""

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 0:
            raise ValueError(f"the pool {self.name} cannot lend less than nothing")


@validated(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Need:
    """What a gang asks for. Every bound of 0 and every empty set asks for nothing."""

    workers: int = 1
    """Size of the gang: all of them, or none."""
    gpus: int = 0
    """Of one worker, all on one node."""
    cpu_cores: float = 0
    """Of one worker."""
    memory_bytes: int = 0
    """Of one worker, in the node's memory."""
    vendors: frozenset[Vendor] = frozenset()
    models: frozenset[str] = frozenset()
    """Any name of a model will do: they are compared in their canonical form."""
    gpu_memory_bytes: int = 0
    """Of each GPU, at least."""
    interconnects: frozenset[Interconnect] = frozenset()
    """How the GPUs of one node reach each other: one of these."""
    interconnect_gb_per_s: float = 0
    """Between GPUs of one node, as measured, at least. A node without a measurement does not do."""
    samples_per_s: float = 0
    """Of one node with the reference model, as measured, at least. A node without a measurement does not do."""
    jurisdictions: tuple[str, ...] = ()
    """Laws under which the data may be used; a site under none of them is never used. Empty: any."""
    arrangement: Arrangement = "pack"
    """On as few nodes as possible, or on as many."""
    tolerations: tuple[Toleration, ...] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    """Labels that a node has."""
    pools: tuple[Pool, ...] = ()
    """A node is in one of these, the first one that it fits; empty: any will do."""

    def __post_init__(self) -> None:
        bounds = (self.gpus, self.cpu_cores, self.memory_bytes, self.gpu_memory_bytes, self.samples_per_s)
        if self.workers < 1 or min(*bounds, self.interconnect_gb_per_s) < 0:
            raise ValueError("a gang has at least one worker, and no bound is below zero")
