"""One of the processes that torchrun starts: it does what the trainer says, and ends when the trainer does."""

import ctypes
import logging
import os
import queue
import signal
import socket
import sys
import threading
from typing import Any, Final, NoReturn

from windfall.site_trainer.ranks import wire
from windfall.site_trainer.ranks.group import ADDRESS

log = logging.getLogger("windfall.site_trainer.ranks")

_PR_SET_PDEATHSIG: Final = 1
FELL: Final = 70
"""Exit status of one that is to be started anew."""


def main() -> NoReturn:
    number = int(os.environ["RANK"])
    logging.basicConfig(
        level=logging.INFO if number == 0 else logging.ERROR,
        format=f"%(asctime)s %(levelname)-7s rank {number} %(message)s",
        stream=sys.stderr,
    )
    _die_with_torchrun()
    link = socket.socket(socket.AF_UNIX)
    try:
        link.connect(os.environ[ADDRESS])
    except OSError:
        # The trainer is gone already: nobody is to start us anew.
        os._exit(0)
    words: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(link, words), daemon=True).start()
    try:
        # Only now: from here on we end with the trainer, however long torch takes to load.
        from windfall.site_trainer.ranks.rank import Rank

        rank = Rank.joined()
        group = f"{os.environ['TORCHELASTIC_RUN_ID']}/{os.environ['TORCHELASTIC_RESTART_COUNT']}"
        wire.send(link, {"group": group, "rank": number, "pid": os.getpid()})
        while True:
            wire.send(link, rank.do(words.get()))
    except Exception:
        log.exception("rank %d broke", number)
    logging.shutdown()
    # A thread of torch may still wait for a rank that never comes.
    os._exit(FELL)


def _listen(link: socket.socket, words: "queue.SimpleQueue[dict[str, Any]]") -> None:
    """Hear the trainer while the other thread computes, so that its end is ours."""
    while (word := wire.receive(link)) is not None:
        if word["do"] == "fall":
            os._exit(FELL)
        words.put(word)
    os._exit(0)


def _die_with_torchrun() -> None:
    """Linux kills us when our parent dies, and tells nobody else; elsewhere the trainer notices and lets us go."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(FELL)


if __name__ == "__main__":
    main()
