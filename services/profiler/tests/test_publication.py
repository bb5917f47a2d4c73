"""Labels, feature files, device attributes and the document: valid whatever the hardware is called."""

import json
import logging
import re
import stat
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.events import Measured, NodeProfiled, Recommendation
from windfall.contracts.hardware import Accelerator, Hardware, Interconnect, Nic, PcieLink, Processor
from windfall.contracts.message import derived_id
from windfall.contracts.profile import Identity, Local, Profile, told
from windfall.profiler.discovery.gpu_models import canonical
from windfall.profiler.publication.device_attributes import devices
from windfall.profiler.publication.features import FEATURES_FILE, feature_file
from windfall.profiler.publication.files import to_files, write_whole
from windfall.profiler.publication.labels import PREFIX, label_value, labels, measured_labels

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
VALUE = re.compile(r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")
H100 = Accelerator(vendor="nvidia", model="NVIDIA H100 80GB HBM3", canonical_model="h100-sxm5-80gb", memory_bytes=2**36)
MI210 = Accelerator(vendor="amd", model="AMD Instinct MI210", canonical_model="mi210-64gb", memory_bytes=2**35)
WINDOW = derived_id("publication", "window", "site-a")
EVENT = NodeProfiled(
    id=WINDOW,
    at=NOON,
    site="site-a",
    window_id=WINDOW,
    lease_token=1,
    node="site-a-1",
    measured=Measured(fingerprint="0123456789abcdef", cpu_model="any", cpu_cores=1, memory_bytes=1),
    recommendation=Recommendation(micro_batch=1, local_steps=1, because="it is the only one"),
    hardware=Hardware(accelerators=(H100,)),
)


def of(*gpus: Accelerator, **more: Any) -> dict[str, str]:
    found = labels(Hardware(accelerators=gpus, **more), "mark")
    return {name.removeprefix(PREFIX): value for name, value in found.items()}


# --- canonical names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-sxm5-80gb"),
        ("NVIDIA-H100-80GB-HBM3", "h100-sxm5-80gb"),  # gpu.product of GPU Feature Discovery
        ("NVIDIA-H100-80GB-HBM3-SHARED", "h100-sxm5-80gb"),
        ("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "a100-sxm4-40gb"),
        ("A100-SXM4-40GB", "a100-sxm4-40gb"),  # drivers before 470
        ("AMD_Instinct_MI300X_OAM", "mi300x-192gb"),  # product-name of AMD's labeller
        ("AMD Instinct MI300X", "mi300x-192gb"),
        ("AMD Instinct MI300X VF", "mi300x-192gb"),
        ("Some Future GPU", None),
        ("", None),
    ],
)
def test_a_model_has_one_name_however_it_is_written(model: str, name: str | None) -> None:
    assert canonical(model) == name


def test_a_device_without_a_name_is_known_by_its_id() -> None:
    assert canonical("", 0x74A1) == "mi300x-192gb"
    assert canonical("", 0xFFFF) is None


# --- labels -----------------------------------------------------------------------------------------------------------


def test_a_node_of_one_model() -> None:
    ways = (Interconnect(first=0, second=1, kind="nvlink", links=18),)
    found = of(H100, H100, interconnects=ways)
    assert (found["gpu.count"], found["gpu.model"], found["gpu.interconnect"]) == ("2", "h100-sxm5-80gb", "nvlink")
    assert found["gpu.product"] == "NVIDIA-H100-80GB-HBM3", "as NVIDIA's own label spells it"
    assert found["gpu.memory-gib"] == "64"
    assert "gpu.mixed" not in found


def test_a_mixed_node_is_not_taken_for_its_first_gpu() -> None:
    found = of(H100, MI210, MI210)
    assert {"gpu.model", "gpu.vendor", "gpu.product"} & found.keys() == set()
    assert found["gpu.mixed"] == "true"
    assert (found["gpu-model.h100-sxm5-80gb.count"], found["gpu-model.mi210-64gb.count"]) == ("1", "2")
    assert found["gpu.memory-gib"] == "32", "what fits every one"


def test_what_was_measured_of_a_node_is_on_it() -> None:
    wide, narrow, unknown = (
        Interconnect(first=0, second=second, kind="nvlink", gb_per_s=width)
        for second, width in ((1, 300.0), (2, 248.04), (3, None))
    )
    measured = EVENT.measured.model_copy(update={"step_s_by_micro_batch": {1: 0.1, 8: 0.05}})
    found = measured_labels(Hardware(accelerators=(H100,), interconnects=(wide, narrow)), measured)
    assert found == {"windfall.dev/gpu.interconnect-gb-per-s": "248.0", "windfall.dev/samples-per-s": "160.0"}
    assert measured_labels(Hardware(interconnects=(wide, unknown)), EVENT.measured) == {}, "a way may be narrower"


def test_a_node_without_gpus_says_so() -> None:
    assert of()["gpu.count"] == "0"
    assert "gpu.incomplete" not in of()


def test_a_gpu_that_cannot_be_used_is_told() -> None:
    assert of(missing={"nvidia": "the driver is not loaded"})["gpu.incomplete"] == "true"
    assert of(missing={"nvidia.3": "this GPU was lost while it was asked"})["gpu.incomplete"] == "true"
    for part in ("accelerators.0.ecc", "amd.software", "storage"):
        assert "gpu.incomplete" not in of(MI210, missing={part: "nobody says it"})


def test_the_fastest_interface_that_is_up_counts() -> None:
    nics = (Nic(up=True, speed_mbit_per_s=25_000), Nic(up=False, speed_mbit_per_s=400_000, rdma="infiniband"))
    found = of(nics=nics)
    assert found["nic.speed-mbit"] == "25000"
    assert "nic.rdma" not in found


@given(st.text())
def test_every_text_becomes_a_valid_value_or_none(text: str) -> None:
    value = label_value(text)
    assert value == "" or VALUE.match(value)


@given(st.lists(st.text(max_size=100), min_size=1, max_size=3), st.text(max_size=100))
def test_labels_are_valid_whatever_vendors_call_their_things(models: list[str], processor: str) -> None:
    gpus = tuple(Accelerator(vendor="nvidia", model=model) for model in models)
    cpu = Processor(model=processor, threads=1, memory_bytes=1)
    for name, value in labels(Hardware(accelerators=gpus, processor=cpu), "mark").items():
        assert VALUE.match(value), (name, value)
        prefix, _, rest = name.partition("/")
        assert prefix == "windfall.dev"
        assert VALUE.match(rest), name


# --- Node Feature Discovery -------------------------------------------------------------------------------------------


def test_a_feature_file_expires_in_universal_time() -> None:
    plus_two = NOON.astimezone(timezone(timedelta(hours=2)))
    assert feature_file({"windfall.dev/gpu.count": "0"}, plus_two).splitlines() == [
        "# written by windfall's profiler; do not edit",
        "# +expiry-time=2026-06-01T12:00:00Z",
        "windfall.dev/gpu.count=0",
    ]


# --- Dynamic Resource Allocation --------------------------------------------------------------------------------------


def resource_slice(listed: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": "node-1-windfall"},
        "spec": {
            "driver": "windfall.dev",
            "nodeName": "node-1",
            "pool": {"name": "node-1", "generation": 1, "resourceSliceCount": 1},
            "devices": listed,
        },
    }


FULL = H100.model_copy(
    update={
        "driver": "535.104.05",
        "architecture": "sm_90",
        "numa_node": 1,
        "ecc": True,
        "pcie": PcieLink(generation_max=5, width_max=16),
    }
)


def test_devices_are_what_kubernetes_takes() -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    identity = Identity(uuid="GPU-1", pci_address="0000:1b:00.0")
    listed = devices(Hardware(accelerators=(FULL, MI210)), Local(accelerators=(identity,)))
    validate(resource_slice(listed), "1.35", strict=True)
    attributes = listed[0]["attributes"]
    assert attributes["windfall.dev/driverVersion"] == {"version": "535.104.5"}, "a semantic version"
    assert attributes["windfall.dev/model"] == {"string": "h100-sxm5-80gb"}
    assert attributes["windfall.dev/uuid"] == {"string": "GPU-1"}
    assert listed[0]["capacity"] == {"windfall.dev/memory": {"value": "65536Mi"}}
    assert "windfall.dev/uuid" not in devices(Hardware(accelerators=(FULL,)))[0]["attributes"]


@given(st.text(max_size=200), st.text(alphabet="0123456789.rc-", max_size=30))
def test_attributes_keep_to_their_limits(model: str, driver: str) -> None:
    gpu = Accelerator.model_construct(vendor="amd", model=model, driver=driver)
    for name, value in devices(Hardware.model_construct(accelerators=(gpu,)))[0]["attributes"].items():
        domain, _, rest = name.partition("/")
        assert domain == "windfall.dev"
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9]{0,31}", rest)
        ((kind, told_value),) = value.items()
        assert kind in ("string", "version", "int", "bool")
        assert len(str(told_value)) <= 64


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_profile_and_its_labels_are_written(tmp_path: Path) -> None:
    features = tmp_path / "features.d"
    features.mkdir()
    profile = told(EVENT, Local(accelerators=(Identity(uuid="GPU-1"),)))
    to_files(tmp_path, features)(profile)
    document = tmp_path / "profile.json"
    assert Profile.model_validate_json(document.read_text()) == profile
    assert json.loads(document.read_text())["apiVersion"] == "windfall.dev/profile/v1"
    assert stat.S_IMODE(document.stat().st_mode) == 0o600, "it says which devices they are"
    written = (features / FEATURES_FILE).read_text()
    assert "windfall.dev/gpu.model=h100-sxm5-80gb\n" in written
    assert "GPU-1" not in written
    assert stat.S_IMODE((features / FEATURES_FILE).stat().st_mode) == 0o644, "another user's daemon reads it"
    assert names(features) == [FEATURES_FILE]


def test_without_a_place_for_features_the_document_is_all(tmp_path: Path) -> None:
    to_files(tmp_path, None)(told(EVENT))
    assert names(tmp_path) == ["profile.json"]


def test_a_place_that_cannot_be_written_is_said_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        to_files(tmp_path, tmp_path / "gone")(told(EVENT))
    assert [record.getMessage() for record in caplog.records] == [
        f"cannot write {tmp_path / 'gone' / FEATURES_FILE}: No such file or directory"
    ]
    assert names(tmp_path) == ["profile.json"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "features"
    write_whole(path, "old", private=False)
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError):
        write_whole(path, "new", private=False)
    assert names(tmp_path) == ["features"], "no half of it is left"
