"""The word that the kubelet gives a SuperNode before it ends it, said to real processes."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from windfall.contracts.resources.flower import Pool
from windfall.provisioner.operator.flower.drain import hook


@pytest.fixture
def client_app(tmp_path: Path) -> Path:
    """A program that is called like Flower's and does nothing for a while."""
    sleep = shutil.which("sleep")
    assert sleep is not None
    program = tmp_path / "flwr-clientapp"
    program.symlink_to(sleep)
    return program


def waits(settle: str = "PT0.6S") -> list[str]:
    command = hook(Pool.model_validate({"name": "a", "drain": {"settle": settle}}))["preStop"]["exec"]["command"]
    return [sys.executable, *command[1:]]


def test_it_waits_for_a_client_app_that_is_at_work_and_then_until_what_it_sent_has_left(client_app: Path) -> None:
    with subprocess.Popen([str(client_app), "1.5"]) as working:
        began = time.monotonic()
        subprocess.run(waits(), check=True, timeout=60)
        assert working.poll() is not None
        assert time.monotonic() - began >= 2.0


def test_without_one_it_waits_no_longer_than_to_settle() -> None:
    subprocess.run(waits("PT0.1S"), check=True, timeout=60)
