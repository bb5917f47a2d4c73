"""Files of tensors, journals and keys: what a service finds on its own disk."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final
from uuid import UUID

import torch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from tests.fuzz.target import Place, of_file
from windfall.cli.harvest import model_bytes
from windfall.contracts.events import WindowClosed
from windfall.energy_watcher.ledger_file import LedgerFile
from windfall.energy_watcher.site_key import site_key
from windfall.lowcomm.layout import Split, digest
from windfall.lowcomm.rule import Rule
from windfall.servicekit.errors import Mistake
from windfall.servicekit.journal import Journal
from windfall.servicekit.nkey import Nkey
from windfall.servicekit.nkey import read as read_nkey
from windfall.site_trainer import checkpoint
from windfall.site_trainer.checkpoint import Checkpoint
from windfall.site_trainer.collective import holding
from windfall.site_trainer.engine import Progress
from windfall.site_trainer.policy import SitePolicy
from windfall.site_trainer.replica import Replica, keep, kept
from windfall.site_trainer.tensor_file import Unusable, read_whole
from windfall.site_trainer.toy import ToyEngine

_OWNER: Final[Mapping[str, str]] = {"task": "toy", "seed": "1"}
_SPLIT: Final = Split(60, 4)
_RULE: Final = Rule.parse("int8-block", "nesterov:lr=0.7,momentum=0.9")
_scratch: Final = Place()


def _tensors() -> Sequence[bytes]:
    two = {"local": torch.arange(24.0).reshape(4, 6), "count": torch.tensor([3])}
    return [save(two, {"about": "{}"}), save({"w": torch.zeros(3, dtype=torch.bfloat16)})]


def _written(path: Path) -> bytes:
    return path.read_bytes()


@cache
def _checkpoints() -> Sequence[bytes]:
    path = _scratch.holding(b"")
    tensors = {"local": torch.arange(6.0), "optimizer/w/exp_avg": torch.ones(6)}
    progress = Progress(steps=3, tokens=900)
    checkpoint.write(path, Checkpoint(_OWNER, "ab" * 32, 12, progress, {"w/step": 3}, tensors, {"scale": 2.0}))
    return [_written(path)]


def _checkpoint_sealed(data: bytes) -> bytes:
    """The SHA-256 that it names is that of what it says."""
    path = _scratch.holding(data)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        said = metadata.get("about", "")
        return save(tensors, {"about": said, "sha256": checkpoint.seal(said, tensors)})
    except (SafetensorError, ValueError, TypeError, RuntimeError):
        return data


@cache
def _holdings() -> Sequence[bytes]:
    path = _scratch.holding(b"")
    holding.save(holding.begin(_RULE, torch.arange(float(_SPLIT.elements)), _SPLIT), path, _OWNER)
    return [_written(path)]


@cache
def _replicas() -> Sequence[bytes]:
    path, base = _scratch.holding(b""), torch.arange(float(_SPLIT.elements))
    keep(Replica(digest(base), base, _RULE.init(_SPLIT)), _RULE, path)
    return [_written(path)]


@cache
def _toys() -> Sequence[bytes]:
    engine = ToyEngine(8, 1)
    engine.load(torch.zeros(8))
    engine.step(4)
    path = _scratch.holding(b"")
    engine.save(path)
    return [_written(path)]


def _restored(path: Path) -> object:
    engine = ToyEngine(8, 1)
    engine.load(torch.zeros(8))
    return engine.restore(path, digest(torch.zeros(8)))


@cache
def _journals() -> Sequence[bytes]:
    path = _scratch.holding(b"")
    path.unlink()
    journal = Journal(path, "/windfall/energy-watcher/site-a")
    at = datetime(2026, 1, 1, tzinfo=UTC)
    said = WindowClosed(id=UUID(int=1), at=at, site="site-a", window_id=UUID(int=2), reason="dirty", crossed_at=at)
    journal.commit(state={"policy": SitePolicy()}, say=(said,), heard=UUID(int=3))
    journal.close()
    data = _written(path)
    path.unlink()
    return [data]


def _taken_up(path: Path) -> object:
    """All that a service does with its journal when it starts."""
    for beside in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + beside).unlink(missing_ok=True)
    journal = Journal(path, "/windfall/energy-watcher/site-a")
    try:
        journal.load("policy", SitePolicy)
        journal.heard(UUID(int=3))
        journal.count_unsaid()
        unsaid = journal.unsaid()
        journal.mark_said([one.position for one in unsaid])
        journal.unsay_all()
        journal.commit(state={"policy": SitePolicy()}, heard=UUID(int=4))
        return unsaid
    finally:
        journal.close()


def _keys() -> Sequence[bytes]:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return [
        key.private_bytes(*pem, serialization.NoEncryption()),
        key.private_bytes(*pem, serialization.BestAvailableEncryption(b"x")),
    ]


def _ledger_lines(path: Path) -> object:
    ledger = LedgerFile(path)
    return ledger.last(), list(ledger.lines())


TARGETS: Final = (
    of_file("safetensors", _tensors, read_whole, (Unusable,)),
    of_file("safetensors header", _tensors, model_bytes, (Mistake,)),
    of_file(
        "checkpoint", _checkpoints, lambda path: checkpoint.read(path, _OWNER), (Unusable,), mended=_checkpoint_sealed
    ),
    of_file("collective checkpoint", _holdings, lambda path: holding.load(path, _OWNER), (Unusable,)),
    of_file("held base", _replicas, lambda path: kept(path, _RULE, _SPLIT)),
    of_file("toy checkpoint", _toys, _restored),
    of_file("journal", _journals, _taken_up, (Mistake,)),
    of_file("ledger's key", _keys, lambda path: site_key(path.parent, path), (Mistake,)),
    of_file("ledger file", lambda: [b'{"a":1}\n{"b":2}\n', b'{"a":1}\n{"b'], _ledger_lines, (Mistake,)),
    of_file(
        "nkey",
        lambda: [Nkey(Ed25519PrivateKey.from_private_bytes(bytes(range(32)))).seed.encode()],
        read_nkey,
        (Mistake,),
    ),
)
