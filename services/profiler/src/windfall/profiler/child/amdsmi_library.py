"""Asks AMD's library about every AMD GPU: a program of its own, because any of its calls may hang in the driver.

It stands on the Python package amdsmi, which comes with ROCm, and nothing else. Importing it without its shared library
prints two lines and raises ``KeyError``: whatever it prints goes to standard error, whatever it raises is an answer.
Each line is a JSON object, as in ``nvml.py`` beside it: ``library``, ``asking``, ``device``, ``done``.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

ANSWER = sys.stdout


def say(line: dict[str, object]) -> None:
    print(json.dumps(line, default=str), file=ANSWER, flush=True)


def device(smi: Any, handle: Any, index: int) -> None:
    say({"asking": index})
    values: dict[str, object] = {}
    errors: dict[str, str] = {}

    def ask(name: str, question: Callable[[], object]) -> None:
        try:
            values[name] = question()
        except (smi.AmdSmiException, AttributeError, KeyError, TypeError) as error:
            errors[name] = str(error) or type(error).__name__

    ask("bdf", lambda: smi.amdsmi_get_gpu_device_bdf(handle))
    ask("uuid", lambda: smi.amdsmi_get_gpu_device_uuid(handle))
    ask("asic", lambda: smi.amdsmi_get_gpu_asic_info(handle))
    ask("vram", lambda: smi.amdsmi_get_gpu_vram_info(handle))
    ask("driver", lambda: smi.amdsmi_get_gpu_driver_info(handle))
    ask("power_cap", lambda: smi.amdsmi_get_power_cap_info(handle))
    ask("compute_partition", lambda: smi.amdsmi_get_gpu_compute_partition(handle))
    ask("memory_partition", lambda: smi.amdsmi_get_gpu_memory_partition(handle))
    ask("ecc_count", lambda: smi.amdsmi_get_gpu_total_ecc_count(handle))
    ask("ecc", lambda: protected(smi, handle))
    say({"device": index, "values": values, "errors": errors})


def protected(smi: Any, handle: Any) -> bool:
    """Whether ECC of the memory controllers is on."""
    blocks = smi.amdsmi_get_gpu_ras_block_features_enabled(handle)
    return any("UMC" in str(one.get("block")) and "ENABLED" in str(one.get("status")) for one in blocks)


def main() -> None:
    try:
        smi: Any = import_module("amdsmi")
    except ModuleNotFoundError as error:
        if error.name == "amdsmi":
            say({"library": "amdsmi is not installed", "absent": True})
        else:
            say({"library": f"amdsmi cannot be loaded: {error}"})
        return
    except Exception as error:  # noqa: BLE001 - it raises KeyError for a library that is not there
        say({"library": f"amdsmi cannot load its shared library: {type(error).__name__} {error}"})
        return
    try:
        smi.amdsmi_init()
        handles = smi.amdsmi_get_processor_handles()
    except smi.AmdSmiException as error:
        say({"library": f"amdsmi cannot reach the driver: {' '.join(str(error).split())}"})
        return
    for index, handle in enumerate(handles):
        device(smi, handle, index)
    say({"done": True})


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        main()
    os._exit(0)  # everything is said; a driver may take its time to let go, or never do
