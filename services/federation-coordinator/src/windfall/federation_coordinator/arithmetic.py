"""torch in a coordinator: loaded beside what answers, and on one thread for each that computes.

Loading it takes longer than all the rest of a start. Sites that come back to a coordinator ask whether what they said
counts and which round runs, and their bytes go to disk: none of it needs torch. Whoever does need it calls
``load_torch`` first.
"""

import gc
import sys
from functools import cache
from threading import Lock

_LOADING = Lock()


def load_torch() -> None:
    """Have torch in this process; again costs nothing. From any thread but the event loop's."""
    with _LOADING:
        _loaded()


@cache
def _loaded() -> None:
    fresh = "torch" not in sys.modules
    if fresh:
        # As in the composition root: half a million objects, and no garbage among them.
        gc.disable()
    try:
        import torch
    finally:
        if fresh:
            gc.freeze()
        gc.enable()
    # Runs of the model are spread over the cores by those who merge.
    torch.set_num_threads(1)
