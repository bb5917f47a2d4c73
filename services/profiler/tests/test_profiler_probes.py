"""What every probe promises, asked of the real ones and of the double: a value or a reason for each part."""

import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import get_args

import pytest

from windfall.contracts.v1.link_probe_pb2_grpc import add_LinkProbeServicer_to_server
from windfall.profiler.cpu import Cpu
from windfall.profiler.fixed import FixedProbe
from windfall.profiler.link import GrpcLink
from windfall.profiler.measurement.bench import TorchBench
from windfall.profiler.probe import KNOWN, ComputeProbe, HostProbe
from windfall.profiler.profile import COMPUTE_PARTS, LINK_PARTS, Host, Reading
from windfall.profiler.settings import ProfilerSettings
from windfall.servicekit import rpc
from windfall.servicekit.link_probe import LinkProbeServicer

HOST = Host(cpu_model="any", cpu_cores=2, memory_bytes=2**30)


def accounted_for(reading: Reading, parts: tuple[str, ...]) -> bool:
    return all(getattr(reading, part) or reading.missing.get(part) for part in parts)


@pytest.mark.parametrize("probe", [Cpu(), FixedProbe()], ids=lambda probe: type(probe).__name__)
async def test_a_host_is_the_same_when_asked_again(probe: HostProbe) -> None:
    host = await probe.host()
    assert host == await probe.host()
    assert host.cpu_model and host.memory_bytes


@pytest.mark.parametrize(
    "probe",
    [
        pytest.param(TorchBench(timedelta(seconds=2)), id="torch"),
        pytest.param(TorchBench(timedelta(seconds=2), python=(sys.executable, "-S")), id="torch-missing"),
        pytest.param(FixedProbe(), id="fixed"),
    ],
)
async def test_a_compute_probe_accounts_for_every_part(probe: ComputeProbe) -> None:
    version = probe.version
    compute = await probe.compute(HOST)
    assert accounted_for(compute, COMPUTE_PARTS)
    assert all(size > 0 and step_s > 0 for size, step_s in compute.step_s_by_micro_batch.items())
    assert version and version == probe.version


async def test_a_link_probe_accounts_for_every_part() -> None:
    server = await rpc.serve("127.0.0.1:0", [partial(add_LinkProbeServicer_to_server, LinkProbeServicer())])
    target = f"127.0.0.1:{server.port}"
    for probe in (GrpcLink(target, 1000), GrpcLink(None, 1000), FixedProbe()):
        assert accounted_for(await probe.link(), LINK_PARTS)
    await server.stop(timedelta(0))


def test_every_probe_that_a_setting_can_name_is_known(tmp_path: Path) -> None:
    assert set(get_args(ProfilerSettings.model_fields["probe"].annotation)) == set(KNOWN)
    for build in KNOWN.values():
        assert build(ProfilerSettings(site="site-a", state_dir=tmp_path)).compute.version
