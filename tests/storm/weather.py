"""Lets a storm loose on a fleet of real processes, waits until it has settled, and says what does not hold."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from tests.storm.afterwards import end, quiet, until, up
from tests.storm.blows import strike
from tests.storm.fleet import NAMESPACE, Serves, fleet
from tests.storm.outcome import Outcome
from tests.storm.plan import Said, Size, Storm, storm
from tests.storm.platforms import USUAL, Platform, controlled
from tests.storm.servers import double
from windfall.provisioner.manifests.labels import WINDOW
from windfall.servicekit.kube import Object
from windfall.servicekit.testing.kube_played import Course, Kubelet, played


async def weather(
    folder: Path,
    seed: int,
    size: Size,
    say: Callable[[str], None],
    serves: Serves = double,
    platform: Platform = USUAL,
) -> Outcome:
    """Needs two cores for some ``size.lasts`` and a minute.

    Args:
        serves: the API server.
        platform: what the sites are made of.
        say: told what is going on.
    """
    began = datetime.now(UTC)
    now = storm(seed, size, began)
    async with fleet(folder, now, serves, platform) as all_:
        kubeconfig, kubelet = all_.served.kubeconfig, Kubelet(lambda pod: _course(now, pod))
        async with (
            played(kubeconfig, kubelet),
            controlled(kubeconfig, NAMESPACE, platform, lambda: (now, began)),
        ):
            await until("the workers are up", lambda: up(all_))
            began = datetime.now(UTC)
            now = storm(seed, size, began)
            outcome = Outcome(now, sentences=sum(isinstance(blow, Said) for blow in now.blows))
            say(f"seed {seed}: the storm has begun, {len(now.blows)} blows in {size.lasts.total_seconds():.0f} s")
            await strike(all_, now, began)
            await quiet(all_, outcome, say)
            await end(all_, outcome, say)
        outcome.took = datetime.now(UTC) - began
    return outcome


def _course(plan: Storm, pod: Object) -> Course:
    window = (pod["metadata"].get("labels") or {}).get(WINDOW)
    return Course() if window is None else plan.course(UUID(window))
