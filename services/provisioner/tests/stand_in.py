"""A node for tests: says ready as the trainer does, goes when asked to. ``WINDFALL_STAND_IN`` names its manners."""

import os
import signal
import subprocess
import sys
from pathlib import Path

manner = os.environ.get("WINDFALL_STAND_IN", "polite")
if manner == "broken":
    sys.exit(7)
# Blocked before ready is said, so that a word that comes at once waits for sigwait.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
if manner == "parent":
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"])
    Path(os.environ["CHILD_PID_FILE"]).write_text(str(child.pid))
if manner == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if manner != "mute":
    Path(os.environ["WINDFALL_READY_FILE"]).write_text(os.environ["WINDFALL_LEASE_TOKEN"])
    os.close(int(os.environ["WINDFALL_READY_FD"]))
if manner == "stubborn":
    signal.sigwait({signal.SIGUSR1})
signal.sigwait({signal.SIGTERM})
sys.exit(0)
