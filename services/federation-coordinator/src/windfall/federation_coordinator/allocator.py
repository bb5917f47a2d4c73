"""How the C library's allocator is asked to treat a process that moves other people's tensors.

Left alone, glibc gives every thread an arena of its own and keeps in each what was freed: thirty sites that push at
once leave a coordinator with the memory of their busiest moment, several times over. With one arena the threads reuse
each other's buffers (mallopt(3)). Handing chunk-sized buffers straight back to the system saves no more, and costs page
faults that make a round a third longer.
"""

import ctypes
from typing import Final

_M_ARENA_MAX: Final = -8


def share_one_arena() -> None:
    """Call before the first thread starts. Another C library than glibc is left as it is."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
