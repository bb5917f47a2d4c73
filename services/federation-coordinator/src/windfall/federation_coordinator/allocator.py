"""How the C library's allocator is asked to treat a process that moves other people's tensors.

Left alone, glibc gives every thread an arena of its own and keeps in them what was freed: thirty sites that push at
once leave a coordinator with the memory of their busiest moment. One arena, and chunk-sized buffers that go straight
back to the system, hold it to what is in use (mallopt(3)).
"""

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_CHUNK_SIZED: Final = 256 * 1024


def give_back_freed_memory() -> None:
    """Call before the first thread starts. Another C library than glibc is left as it is."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _CHUNK_SIZED)
