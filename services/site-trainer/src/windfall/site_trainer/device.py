"""Where to train."""

import torch

from windfall.site_trainer.engine import Device


def chosen(name: Device) -> torch.device:
    """The device of this name; of several GPUs, the process's current one.

    Raises:
        ValueError: it is not there.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ValueError("no CUDA or ROCm device is there. Set WINDFALL_DEVICE=auto, or install its driver and torch")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def gpus(name: Device) -> int:
    """How many processes suit the node: one per GPU, one where none is used."""
    return max(1, torch.cuda.device_count()) if name != "cpu" else 1


def warm_up(device: Device) -> None:
    """Make the device ready: its context and its libraries load with the first multiplication.

    Raises:
        ValueError: the device is not there.
    """
    square = torch.ones((8, 8), device=chosen(device))
    (square @ square).sum().item()
