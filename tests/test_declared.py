"""``windfall apply`` and ``windfall delete``: sites and federations on an API server, the double and a real one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from tests.commanded import begun, ran
from windfall.cli.declared.applying import applied
from windfall.cli.declared.deleting import deleted, found
from windfall.cli.declared.kinds import FEDERATION, MANAGER, SITE, namespace_of
from windfall.cli.declared.reading import read
from windfall.cli.declared.waiting import Named, until_ready
from windfall.provisioner.operator.testing.installed import install
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.kube import Cluster, Connection, Object
from windfall.servicekit.kube.kinds import NAMESPACE
from windfall.servicekit.natsserver import free_port

EXAMPLES = Path(__file__).resolve().parents[1] / "deploy" / "examples"
SITES = EXAMPLES / "sites.yaml"
FEDERATIONS = EXAMPLES / "federation-windfall.yaml"
SECONDS = timedelta(seconds=60)


@pytest.fixture
async def cluster(any_kubeconfig: Path) -> AsyncIterator[Cluster]:
    async with Cluster.connect(Connection(any_kubeconfig)) as made:
        await install(made)
        yield made


@pytest.fixture
async def namespace(cluster: Cluster) -> AsyncIterator[str]:
    name = f"test-{uuid4().hex[:8]}"
    await cluster.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    await cluster.delete(NAMESPACE, name)


async def test_what_is_declared_is_tried_applied_and_changed(
    cluster: Cluster, any_kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    here = ("--kubeconfig", str(any_kubeconfig), "-n", namespace)
    files = ("-f", str(FEDERATIONS), "-f", str(SITES))
    code, out, err = await ran("apply", *files, *here, "--dry-run")
    assert (code, err) == (ExitCode.DIFFERENT, "")
    assert "3 created, 0 changed, 0 unchanged. Nothing was written." in out and "+++ file/Site/quebec" in out
    assert await cluster.get(SITE, "quebec", namespace) is None

    code, out, err = await ran("apply", *files, *here)
    assert (code, err) == (0, "")
    assert out.splitlines() == ["site/quebec created", "site/texas created", "federation/forest created"]
    connection = Connection(any_kubeconfig)
    objects = read([str(FEDERATIONS), str(SITES)])
    again = await applied(objects, connection, namespace, force=False, dry_run=True)
    assert [one.state for one in again] == ["unchanged"] * 3

    changed = tmp_path / "site.yaml"
    changed.write_text(SITES.read_text().partition("---")[0].replace("count: 8", "count: 4"))
    (one,) = await applied(read([str(changed)]), connection, namespace, force=False, dry_run=False)
    assert (one.state, one.name) == ("changed", "quebec")
    assert "-  - count: 8" in one.diff and "+  - count: 4" in one.diff
    stands = await cluster.get(SITE, "quebec", namespace)
    assert stands is not None and stands["spec"]["pools"][0]["count"] == 4

    # Somebody else wants it otherwise: it is told whose, and taken over when that is said.
    other = _site(namespace, suspend=True)
    await cluster.apply(SITE, other, manager="somebody")
    changed.write_text(yaml.safe_dump(_site("", suspend=False)))
    with pytest.raises(Mistake, match=r"somebody.*--force"):
        await applied(read([str(changed)]), connection, namespace, force=False, dry_run=False)
    (one,) = await applied(read([str(changed)]), connection, namespace, force=True, dry_run=False)
    assert one.state == "changed"


async def test_it_waits_until_the_operator_says_that_it_is_ready(
    cluster: Cluster, any_kubeconfig: Path, namespace: str
) -> None:
    connection = Connection(any_kubeconfig)
    await applied(read([str(SITES)]), connection, namespace, force=False, dry_run=False)
    told: list[str] = []
    named = [Named(SITE, namespace, name) for name in ("quebec", "texas")]
    waiting = asyncio.create_task(until_ready(named, connection, SECONDS, told.append))
    await _said(cluster, namespace, "quebec", Ready=("False", "the pool h100 has no node"))
    await _until(lambda: told == ["site/quebec is not ready: the pool h100 has no node"])
    await _said(cluster, namespace, "texas", Ready=("True", ""))
    await _said(cluster, namespace, "quebec", Ready=("True", ""))
    await waiting
    assert told[1:] == ["site/quebec is ready", "site/texas is ready"]

    await _said(cluster, namespace, "quebec", Accepted=("False", "dataSets: forest is there twice"))
    with pytest.raises(Mistake, match="site/quebec is refused: dataSets: forest is there twice"):
        await until_ready(named, connection, SECONDS, told.append)
    with pytest.raises(Mistake, match=r"federation/none is not ready after 2 s: no operator has said anything"):
        await until_ready([Named(FEDERATION, namespace, "none")], connection, timedelta(seconds=2), told.append)


async def test_what_is_deleted_drains_before_it_goes(cluster: Cluster, any_kubeconfig: Path, namespace: str) -> None:
    here = ("--kubeconfig", str(any_kubeconfig), "-n", namespace)
    await applied(read([str(SITES)]), Connection(any_kubeconfig), namespace, force=False, dry_run=False)
    await cluster.patch(SITE, "quebec", namespace, {"metadata": {"finalizers": ["windfall.dev/drain"]}})
    code, _, err = await ran("delete", "site", "quebec", *here)
    assert code == ExitCode.USAGE and "say --yes" in err
    with pytest.raises(Mistake, match=r"Did you mean quebec\?"):
        await found("site", "quebeck", Connection(any_kubeconfig), namespace)

    texas, stands = await found("site", "texas", Connection(any_kubeconfig), namespace)
    assert await deleted(texas, stands, Connection(any_kubeconfig)), "no finalizer kept it"
    waiting = await begun("delete", "site", "quebec", *here, "--yes", "--wait", "60")
    assert waiting.stdout is not None
    async with asyncio.timeout(SECONDS.total_seconds()):
        assert await waiting.stdout.readline() == b"site/quebec goes when it is drained\n"
    stands = await _going(cluster, namespace)
    assert stands["metadata"]["deletionTimestamp"]
    await cluster.patch(SITE, "quebec", namespace, {"metadata": {"finalizers": []}})
    out, _ = await waiting.communicate()
    assert (waiting.returncode, out) == (0, b"site/quebec is gone\n")
    with pytest.raises(Mistake, match="there is no site 'quebec'"):
        await found("site", "quebec", Connection(any_kubeconfig), namespace)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"suspnd": True}, r"there is no field spec\.suspnd \(Did you mean suspend\?\)"),
        ({"data_sets": []}, r"there is no field spec\.data_sets \(Did you mean dataSets\?\)"),
        (
            {"pools": [{"name": "p", "gpuVendr": "amd"}]},
            r"no field spec\.pools\[0\]\.gpuVendr \(Did you mean gpuVendor\?\)",
        ),
        ({"signal": {"dwel": "PT1M"}}, r"there is no field spec\.signal\.dwel \(Did you mean dwell\?\)"),
        ({"backend": {"need": {"gpu": 1}}}, r"spec\.backend\.need\.gpu \(Did you mean gpus\?\)"),
        ({"signal": {"dwell": "ten minutes"}}, r"spec\.signal\.dwell: "),
        ({"jurisdiction": None}, r"spec\.jurisdiction: "),
        ({"pools": [{"name": "p"}, {"name": "p"}]}, r"pools: p is there twice"),
    ],
)
def test_what_nobody_would_understand_is_refused_before_it_is_sent(
    tmp_path: Path, change: dict[str, object], cause: str
) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(yaml.safe_dump(_site("", **change)))
    with pytest.raises(Mistake, match=cause) as refusal:
        read([str(file)])
    assert "nothing was sent" in str(refusal.value) and refusal.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "there is nothing to apply"),
        ("[1, 2]", "holds something that is no object"),
        ("kind: Sites", "'Sites' is no kind that is applied here. Did you mean Site?"),
        ("{kind: Site, apiVersion: windfall.dev/v2}", "This version knows windfall.dev/v1alpha1"),
        ("kind: Site\nkind: Site", "is there twice"),
        ("kind: [", "is no YAML"),
        ("{kind: Site, apiVersion: windfall.dev/v1alpha1, metadata: {nmae: a}}", "Did you mean name?"),
        ("{kind: Site, apiVersion: windfall.dev/v1alpha1, metadata: {name: a}, sepc: {}}", "Did you mean spec?"),
        ("{kind: Site, apiVersion: windfall.dev/v1alpha1, metadata: {name: a}}", "spec is missing"),
        ("{kind: Site, apiVersion: windfall.dev/v1alpha1, metadata: {name: a}, status: {}}", "said by the operator"),
    ],
)
def test_a_file_of_something_else_is_told_in_a_line(tmp_path: Path, text: str, cause: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text)
    with pytest.raises(Mistake) as refusal:
        read([str(file)])
    assert cause in str(refusal.value)


def test_an_instant_without_quotes_is_text_as_for_kubectl(tmp_path: Path) -> None:
    file = tmp_path / "federation.yaml"
    file.write_text(FEDERATIONS.read_text().replace('"2027-01-01T00:00:00Z"', "2027-01-01T00:00:00Z"))
    (obj,) = read([str(file)])
    assert obj["spec"]["objective"]["deadline"] == "2027-01-01T00:00:00Z"


async def test_a_server_that_is_away_and_a_kubeconfig_that_is_not_there_are_told_in_a_line(tmp_path: Path) -> None:
    code, _, err = await ran("apply", "-f", str(SITES), "--kubeconfig", str(tmp_path / "none"))
    assert code == ExitCode.RESOURCE and err.count("\n") == 1 and "Name a kubeconfig and context" in err
    config = tmp_path / "kubeconfig"
    context = {"cluster": "here", "user": "me", "namespace": "mine"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": context}],
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{free_port()}"}}],
        "users": [{"name": "me", "user": {"token": "none"}}],
    }
    config.write_text(yaml.safe_dump(document))
    assert namespace_of(Connection(config)) == "mine"
    assert namespace_of(Connection(tmp_path / "none")) == "default"
    code, _, err = await ran("apply", "-f", str(SITES), "--kubeconfig", str(config))
    assert code == ExitCode.SERVER and err.count("\n") == 1
    assert "the API server does not answer" in err and "--kubeconfig" in err
    with pytest.raises(Mistake, match="the API server does not answer"):
        await found("site", "quebec", Connection(config), None)


async def test_a_server_without_our_definitions_says_so(kubeconfig: Path, kube_double: object) -> None:
    with pytest.raises(Mistake, match="Install the resource definitions"):
        await applied(read([str(SITES)]), Connection(kubeconfig), "default", force=False, dry_run=True)


def _site(namespace: str, **spec: object) -> Object:
    metadata = {"name": "quebec", **({"namespace": namespace} if namespace else {})}
    spec = {"jurisdiction": "CA-QC", **spec}
    return {"apiVersion": SITE.api_version, "kind": "Site", "metadata": metadata, "spec": spec}


async def _said(cluster: Cluster, namespace: str, name: str, **conditions: tuple[str, str]) -> None:
    """As the operator does."""
    stands = await cluster.get(SITE, name, namespace)
    assert stands is not None
    generation = stands["metadata"]["generation"]
    told = [
        {
            "type": kind,
            "status": status,
            "reason": "Told",
            "message": message,
            "observedGeneration": generation,
            "lastTransitionTime": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
        for kind, (status, message) in conditions.items()
    ]
    obj = {**_site(namespace), "status": {"observedGeneration": generation, "conditions": told}}
    obj["metadata"]["name"] = name
    obj.pop("spec")
    await cluster.apply_status(SITE, obj, manager=f"{MANAGER}-test", force=True)


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS.total_seconds()):
        while not true():  # noqa: ASYNC110 - a list that another task fills
            await asyncio.sleep(0.02)


async def _going(cluster: Cluster, namespace: str) -> Object:
    async with asyncio.timeout(SECONDS.total_seconds()):
        async for change in cluster.follow(SITE, namespace, fields="metadata.name=quebec"):
            if change.verb == "present" and "deletionTimestamp" in change.object["metadata"]:
                return change.object
    raise AssertionError("a stream of changes does not end")
