"""What a node is made of, as far as it may be told outside its site.

Nothing here says which one it is or where it stands: no name of a host or an interface, no UUID, serial number, address
or path. Those are in :class:`~windfall.contracts.profile.Local`, which stays at home. What could not be found out is
none and named in ``missing`` with the reason, by the path of its field: ``accelerators.3.ecc``, ``storage.fsync_ms``,
``accelerators.*.ecc`` when all lack it for one reason; software that is in disorder by its vendor's name: ``nvidia``.
"""

import re
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from windfall.contracts.message import Sentence

Token = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._+-]{0,61}[A-Za-z0-9+])?$")]
"""One word of at most 63 characters that software gives: a version, an architecture, a driver's or a feature's name."""

_LONGEST_TOKEN: Final = 63


def token(text: str) -> str | None:
    """The word nearest to a text: what no :data:`Token` may hold becomes a dash; none when nothing is left."""
    word = re.sub(r"[^A-Za-z0-9._+-]+", "-", text)[:_LONGEST_TOKEN]
    return re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9+]+$", "", word) or None


class Part(BaseModel):
    """A frozen part of a description. Readers tolerate fields that they do not know."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="ignore", allow_inf_nan=False)


class Partition(Part):
    """A share of an accelerator that software sees as a device of its own."""

    profile: Token
    """What the vendor calls its kind: ``1g.10gb`` (MIG), ``cpx`` (AMD)."""
    memory_bytes: int | None = Field(default=None, ge=0)
    """None where partitions share the accelerator's memory."""


class PcieLink(Part):
    """The slot's connection: what it runs at now, which power management may lower, and what it can."""

    generation: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    """Lanes."""
    generation_max: int | None = Field(default=None, ge=1)
    width_max: int | None = Field(default=None, ge=1)


class Accelerator(Part):
    """One physical GPU."""

    vendor: Literal["nvidia", "amd"]
    model: Sentence
    """As its driver says it."""
    canonical_model: Token | None = None
    """One name for every way in which drivers and tools write it; none when it is in no table of ours."""
    architecture: Token | None = None
    """What a compiler is told to build for: ``sm_90`` (compute capability 9.0), ``gfx942``."""
    memory_bytes: int | None = Field(default=None, ge=0)
    driver: Token | None = None
    """Version of the kernel's driver."""
    partition_mode: Token | None = None
    """How it may be divided: ``mig``, ``spx-nps1``; none when it cannot be."""
    partitions: tuple[Partition, ...] = Field(default=(), max_length=64)
    ecc: bool | None = None
    """Whether its memory is protected."""
    ecc_uncorrected: int | None = Field(default=None, ge=0)
    """Errors since the driver was loaded that could not be corrected."""
    power_limit_w: float | None = Field(default=None, ge=0)
    throttled: tuple[Token, ...] | None = Field(default=None, max_length=32)
    """Why its clocks were held back when it was looked at, in the vendor's words; empty when they were not."""
    numa_node: int | None = Field(default=None, ge=0)
    pcie: PcieLink | None = None


class Interconnect(Part):
    """The best way between two accelerators, by their places in ``accelerators``; each pair is named once."""

    first: int = Field(ge=0)
    second: int = Field(ge=0)
    kind: Literal["nvlink", "xgmi", "pcie"]
    hop: Literal["PIX", "PXB", "PHB", "NODE", "SYS"] | None = None
    """How far they are apart on PCIe: behind one bridge, several, one host bridge, one NUMA node, or none of these."""
    links: int | None = Field(default=None, ge=0)
    """Between the two, or from each of them to the switch between."""
    gb_per_s: float | None = Field(default=None, ge=0)
    """What all its links carry at once in one direction, by their specification. GB is 10⁹ bytes."""


class NumaNode(Part):
    """Processor threads with the memory that is near to them."""

    number: int = Field(ge=0)
    threads: int = Field(ge=0)
    memory_bytes: int | None = Field(default=None, ge=0)


class Processor(Part):
    """The machine's processors, whatever share of them this process may use."""

    model: Sentence
    sockets: int | None = Field(default=None, ge=1)
    cores: int | None = Field(default=None, ge=1)
    """Physical ones, of all sockets."""
    threads: int = Field(ge=1)
    features: tuple[Token, ...] = Field(default=(), max_length=64)
    """Instruction sets that matter to training, as the kernel calls them: ``avx512f``, ``amx_bf16``, ``sve``."""
    numa_nodes: tuple[NumaNode, ...] = Field(default=(), max_length=1024)
    memory_bytes: int = Field(ge=0)


class Nic(Part):
    """A physical network interface."""

    up: bool
    speed_mbit_per_s: int | None = Field(default=None, ge=0)
    """None when it is down, or a virtual one that has no speed."""
    rdma: Literal["infiniband", "roce", "iwarp"] | None = None
    driver: Token | None = None
    numa_node: int | None = Field(default=None, ge=0)
    """None where the firmware, or a virtual machine, does not tell."""


class Storage(Part):
    """What the folder of state lies on. MB is 10⁶ bytes."""

    filesystem: Token | None = None
    total_bytes: int | None = Field(default=None, ge=0)
    free_bytes: int | None = Field(default=None, ge=0)
    """To this process; blocks that only root may take do not count."""
    fsync_ms: float | None = Field(default=None, ge=0)
    """Median of one page written and synchronised."""
    write_mb_per_s: float | None = Field(default=None, ge=0)
    """Sequential, the final synchronisation included."""
    read_mb_per_s: float | None = Field(default=None, ge=0)
    """Sequential, after the page cache was told to forget."""


class System(Part):
    """What runs on it."""

    kernel: Token | None = None
    operating_system: Sentence | None = None
    container: Token | None = None
    """What this process is contained by: ``docker``, ``containerd``, ``podman``, ``kubepods``; none outside one."""
    container_runtimes: dict[Token, Token] = Field(default_factory=dict, max_length=16)
    """Runtimes that are installed → version."""


class Hardware(Part):
    """What a node is made of. A part whose discovery failed is none or empty, and named in ``missing``."""

    accelerators: tuple[Accelerator, ...] = Field(default=(), max_length=256)
    interconnects: tuple[Interconnect, ...] = Field(default=(), max_length=32_640)
    """Every pair of accelerators once."""
    processor: Processor | None = None
    nics: tuple[Nic, ...] = Field(default=(), max_length=256)
    storage: Storage | None = None
    system: System | None = None
    missing: dict[str, Sentence] = Field(default_factory=dict)
    """Part that is missing → why. No accelerator where there is none is not missing."""


def steady(hardware: Hardware) -> Hardware:
    """What stays the same as long as the machine and its drivers do: without how busy, worn or full it is just now."""
    return hardware.model_copy(
        update={
            "accelerators": tuple(
                one.model_copy(
                    update={
                        "throttled": None,
                        "ecc_uncorrected": None,
                        "pcie": one.pcie and one.pcie.model_copy(update={"generation": None, "width": None}),
                    }
                )
                for one in hardware.accelerators
            ),
            "nics": tuple(nic.model_copy(update={"up": True, "speed_mbit_per_s": None}) for nic in hardware.nics),
            "storage": hardware.storage
            and Storage(filesystem=hardware.storage.filesystem, total_bytes=hardware.storage.total_bytes),
            "missing": {},
        }
    )
