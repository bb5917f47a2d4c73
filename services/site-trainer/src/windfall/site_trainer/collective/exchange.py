"""Bytes between the members of a group, over ``torch.distributed``.

Compressed contributions are small and lie in the memory of the CPU, where they are decoded and merged so that the bits
do not depend on a device. So gloo, which speaks TCP from the CPU, fits every mixture of NVIDIA, AMD and none. With the
backend ``nccl`` (torch's name for NCCL and for RCCL) they pass through the device, which pays where members share a
fast fabric and contributions are dense; the members' first words still go by gloo, so that a mixture is refused before
it hangs.
"""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from windfall.servicekit.errors import ExitCode, Mistake

PIECE_ELEMENTS: Final = 1 << 24

T = TypeVar("T")


class PeerLost(Exception):
    """Another member cannot be reached any more, or did not answer in time; the text is torch's reason in one line."""


class Group:
    """A group of members as torchrun formed it. Every method is called by all members alike, and waits for them."""

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size = rank, size
        self._device = device

    @classmethod
    def form(cls, backend: str, timeout: timedelta) -> "Group":
        """Meet the others of this rendezvous, as the agent's variables (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT)
        name them.

        Raises:
            Mistake: not started by torchrun, or started so that a second rendezvous would fail; no device for nccl.
            PeerLost: not all came within ``timeout``.
        """
        if "RANK" not in os.environ:
            raise Mistake("this is not started by torchrun", "Start it as 'windfall.site_trainer.collective' documents")
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            # Members who stay keep the address of the first group's store, those who join make another.
            raise Mistake(
                "torchrun shares one store between groups, and a group that forms anew would wait at the old one",
                "Set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 where torchrun is started",
            )
        device = torch.device("cpu")
        if backend == "nccl":
            if not torch.cuda.is_available():
                raise Mistake("--backend nccl needs a GPU, and torch sees none", "Use gloo", ExitCode.RESOURCE)
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
            torch.cuda.set_device(device)
        backends = "gloo" if backend == "gloo" else "cpu:gloo,cuda:nccl"
        _told(partial(dist.init_process_group, backends, init_method="env://", timeout=timeout))
        return cls(dist.get_rank(), dist.get_world_size(), device)

    def greet(self, word: bytes, most: int) -> tuple[bytes, ...]:
        """As ``all_gather``, but by way of the CPU whatever the backend."""
        return self._gather(word, most, torch.device("cpu"))

    def all_gather(self, message: bytes, most: int) -> tuple[bytes, ...]:
        """Every member's message, of whatever length, in the order of ranks.

        Args:
            most: bytes that a message has at most.

        Raises:
            ValueError: a member announces more than that.
            PeerLost: one is gone.
        """
        return self._gather(message, most, self._device)

    def send(self, tensors: Sequence[Tensor], rank: int) -> None:
        """Send fp32 vectors to one member, which receives vectors of the same lengths."""
        for piece in _pieces(tensors):
            _told(partial(dist.send, piece.to(self._device), rank))

    def receive(self, tensors: Sequence[Tensor], rank: int) -> None:
        """Fill these vectors with what another member sends."""
        for piece in _pieces(tensors):
            arrived = torch.empty_like(piece, device=self._device)
            _told(partial(dist.recv, arrived, rank))
            piece.copy_(arrived)

    def _gather(self, message: bytes, most: int, device: torch.device) -> tuple[bytes, ...]:
        own = torch.tensor([len(message)], device=device)
        lengths = [torch.empty_like(own) for _ in range(self.size)]
        _told(partial(dist.all_gather, lengths, own))
        announced = [int(length) for length in lengths]
        for rank, length in enumerate(announced):
            if not 0 <= length <= most:
                raise ValueError(f"the member of rank {rank} announces {length} bytes, more than the {most} that fit")
        width = max(announced)
        if not width:
            return (b"",) * self.size
        # A collective moves the same number of bytes from everyone.
        padded = torch.frombuffer(bytearray(message.ljust(width, b"\0")), dtype=torch.uint8).to(device)
        received = [torch.empty_like(padded) for _ in range(self.size)]
        _told(partial(dist.all_gather, received, padded))
        return tuple(each[:length].cpu().numpy().tobytes() for each, length in zip(received, announced, strict=True))


def vendor() -> str:
    """Whose collectives ``nccl`` is here."""
    return "RCCL" if torch.version.hip else "NCCL"


def _pieces(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [piece for tensor in tensors if tensor.numel() for piece in torch.split(tensor, PIECE_ELEMENTS)]


def _told(work: Callable[[], T]) -> T:
    try:
        return work()
    except RuntimeError as error:
        # torch has no narrower class for gloo's errors; those of NCCL and of the store derive from this one.
        raise PeerLost(str(error).strip().splitlines()[0]) from error
