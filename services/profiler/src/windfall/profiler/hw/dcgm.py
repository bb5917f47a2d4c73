"""What NVIDIA's dcgm-exporter shows: Prometheus's text format, of which the samples named ``DCGM_FI_*`` matter."""

import math
import re
from typing import Final

MOST_BYTES: Final = 4 * 2**20
_SAMPLE: Final = re.compile(r"^(DCGM_FI_\w+)\{([^}]*)\}\s+(\S+)", re.MULTILINE)
_GPU: Final = re.compile(r'(?:^|,)gpu="(\d+)"')


def parse(text: str) -> dict[str, dict[str, float]]:
    """Values by device, ``dcgm.0``. Where the GPU is divided, what its instances have is summed.

    Raises:
        ValueError: a sample is no number.
    """
    found: dict[str, dict[str, float]] = {}
    for name, labels, number in _SAMPLE.findall(text):
        gpu = _GPU.search(labels)
        value = float(number)
        if gpu is None or not math.isfinite(value):
            continue
        of = found.setdefault(f"dcgm.{gpu[1]}", {})
        # A divided GPU shows its own power and temperature again with each instance; only memory is the instance's.
        of[name] = of.get(name, 0.0) + value if name.startswith("DCGM_FI_DEV_FB_") else value
    for of in found.values():
        if "DCGM_FI_DEV_FB_TOTAL" not in of and {"DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE"} <= of.keys():
            of["DCGM_FI_DEV_FB_TOTAL"] = of["DCGM_FI_DEV_FB_USED"] + of["DCGM_FI_DEV_FB_FREE"]
    return found
