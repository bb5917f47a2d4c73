"""What the adapter relies on in the pinned Flower. A new version passes these or is not taken."""

import json
import os
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import flwr
import pytest
import torch
from flwr.app import ArrayRecord, Message, MessageType, Metadata, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from windfall.flower_adapter.arrays import from_record, to_record
from windfall.flower_adapter.flat import from_flat, layout_of_record, to_flat
from windfall.lowcomm.layout import Layout, TensorSpec
from windfall.lowcomm.merge import weighted_mean


def test_the_pinned_version_is_the_one_that_runs() -> None:
    assert f"flwr=={flwr.__version__}" in (requires("windfall-flower-adapter") or [])


def reply(node: int, arrays: ArrayRecord, tokens: int) -> Message:
    metadata = Metadata(
        run_id=1,
        message_id=f"reply-{node}",
        src_node_id=node,
        dst_node_id=0,
        reply_to_message_id=f"order-{node}",
        group_id="7",
        created_at=0.0,
        ttl=60.0,
        message_type=MessageType.TRAIN,
    )
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"tokens": tokens})})
    arrived: Message = Message(content, metadata=metadata)  # type: ignore[call-overload]  # Flower's own way, untyped
    return arrived


def averaged(records: list[ArrayRecord], tokens: list[int]) -> ArrayRecord:
    replies = [reply(node, record, weight) for node, (record, weight) in enumerate(zip(records, tokens, strict=True))]
    arrays, _ = FedAvg(weighted_by_key="tokens").aggregate_train(7, replies)
    assert arrays is not None
    return arrays


def vector(seed: int, elements: int) -> Tensor:
    return torch.randn(elements, generator=torch.Generator().manual_seed(seed))


def test_fedavg_gives_the_token_weighted_mean_to_the_bit() -> None:
    layout = Layout((TensorSpec("w", (31, 33)), TensorSpec("scale", ()), TensorSpec("none", (0, 4))))
    flats, tokens = [vector(seed, layout.elements) for seed in range(3)], [640, 1920, 7]
    merged = averaged([from_flat(flat, layout) for flat in flats], tokens)
    assert layout_of_record(merged) == layout
    assert torch.equal(to_flat(merged, layout), weighted_mean(flats, tokens))


def test_fedavg_turns_counters_into_float64_and_they_do_not_travel() -> None:
    state = {"w": torch.ones(2), "num_batches_tracked": torch.tensor(3)}
    merged = averaged([to_record(state), to_record(state)], [1, 1])
    assert from_record(merged)["num_batches_tracked"].dtype == torch.float64
    with pytest.raises(ValueError, match="'num_batches_tracked' is float64, only float32 travels; keep counters"):
        to_flat(merged, layout_of_record(to_record({"w": state["w"]})))


def test_fedavg_averages_bfloat16_as_float32() -> None:
    records = [to_record({"w": torch.tensor([value, 2.0], dtype=torch.bfloat16)}) for value in (1.0, 1.0078125)]
    merged = from_record(averaged(records, [1, 1]))["w"]
    assert merged.dtype == torch.float32 and merged.tolist() == [1.00390625, 2.0]


def test_flower_itself_refuses_bfloat16() -> None:
    """The day it does not, our own encoding can go."""
    with pytest.raises(TypeError, match="BFloat16"):
        ArrayRecord({"w": torch.ones(2, dtype=torch.bfloat16)})


WATCHED = """
import json, os, sys, threading

seen = []

def watch(event, details):
    sends = event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
    writes = event == "open" and details[2] & (os.O_WRONLY | os.O_RDWR)
    if sends or writes or event in {"os.mkdir", "os.rename", "os.system", "subprocess.Popen"}:
        seen.append([event, repr(details)])
        raise RuntimeError(f"not on import: {event}")

sys.addaudithook(watch)
import torch
from windfall.flower_adapter import arrays, flat
record = arrays.to_record({"w": torch.ones(2)})
vector = flat.to_flat(record, flat.layout_of_record(record))
import flwr.serverapp.strategy
from flwr.supercore.telemetry import FLWR_TELEMETRY_ENABLED
print(json.dumps({"seen": seen, "threads": threading.active_count(), "telemetry": FLWR_TELEMETRY_ENABLED}))
"""


@pytest.mark.parametrize("telemetry", ["0", "1"], ids=["telemetry-off", "telemetry-on"])
def test_importing_flower_sends_nothing_and_writes_nothing(tmp_path: Path, telemetry: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
    environment |= {"HOME": str(tmp_path), "FLWR_TELEMETRY_ENABLED": telemetry, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", WATCHED], env=environment, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == {"seen": [], "threads": 1, "telemetry": telemetry}
    assert list(tmp_path.iterdir()) == []
