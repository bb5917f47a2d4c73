"""Credentials that change under a running client, and kubeconfigs that cannot be used."""

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.kube import Cluster, Connection, Kind
from windfall.servicekit.kube.kinds import CONFIG_MAP, NAMESPACE
from windfall.servicekit.testing.kube_api import Identity, KubeApi
from windfall.servicekit.testing.kube_api.store import Key

MASTERS = ("system:masters",)


@pytest.fixture
def token_file(kube_double: KubeApi, kubeconfig: Path) -> Path:
    """Named by the kubeconfig, as a projected volume does it: a link that is set anew."""
    config = json.loads(kubeconfig.read_text())
    config["users"][0]["user"] = {"tokenFile": "token"}
    kubeconfig.write_text(json.dumps(config))
    path = kubeconfig.parent / "token"
    rotate(path, "admintoken")
    return path


def rotate(path: Path, token: str) -> None:
    fresh = path.with_name(f"token-{token}")
    fresh.write_text(f"{token}\n")
    link = path.with_name("link")
    link.symlink_to(fresh)
    link.replace(path)


async def test_a_rotated_token_is_read_anew(kube_double: KubeApi, kubeconfig: Path, token_file: Path) -> None:
    async with Cluster.connect(Connection(kubeconfig)) as cluster:
        assert await cluster.get(NAMESPACE, "default") is not None
        kube_double.tokens.known["second"] = kube_double.tokens.known.pop("admintoken")
        with pytest.raises(Mistake, match="Unauthorized") as caught:
            await cluster.get(NAMESPACE, "default")
        assert caught.value.exit_code is ExitCode.SERVER
        rotate(token_file, "second")
        assert await cluster.get(NAMESPACE, "default") is not None
        assert "second" not in repr(caught.value)


async def test_a_token_that_is_refused_is_looked_at_again(
    kube_double: KubeApi, kubeconfig: Path, token_file: Path
) -> None:
    """The file is another one, and looks the same: as long, as old, under the same number."""
    async with Cluster.connect(Connection(kubeconfig)) as cluster:
        assert await cluster.get(NAMESPACE, "default") is not None
        stat = token_file.stat()
        token_file.write_text("othertoken\n")
        os.utime(token_file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        kube_double.tokens.known["othertoken"] = kube_double.tokens.known.pop("admintoken")
        answers = await asyncio.gather(*(cluster.get(NAMESPACE, "default") for _ in range(5)))
        assert all(answers)


async def test_who_follows_outlives_its_token(kube_double: KubeApi, kubeconfig: Path, token_file: Path) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=3)
    kube_double.tokens.known |= {"short": Identity("a", MASTERS, soon), "next": Identity("a", MASTERS)}
    rotate(token_file, "short")
    heard = asyncio.Queue[str]()

    async def follow(cluster: Cluster) -> None:
        async for change in cluster.follow(CONFIG_MAP, "default"):
            heard.put_nowait(change.verb)

    async with Cluster.connect(Connection(kubeconfig)) as cluster:
        following = asyncio.create_task(follow(cluster))
        async with asyncio.timeout(60):
            assert await heard.get() == "synced"
            await asyncio.sleep(3.1)
            rotate(token_file, "next")
            kube_double.faults.cut_watches()
            await cluster.create(CONFIG_MAP, {"metadata": {"name": "c", "namespace": "default"}})
            assert await heard.get() == "present"
        following.cancel()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "does not exist"),
        ("", "cannot connect"),
        ("a: [", "cannot connect"),
        ("{}", "cannot connect"),
        ('{"current-context": "x", "contexts": [], "clusters": [], "users": []}', "x"),
    ],
    ids=["absent", "empty", "broken", "bare", "contextless"],
)
async def test_a_kubeconfig_that_cannot_be_used(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Mistake, match=said) as caught:
        async with Cluster.connect(Connection(path)):
            pass
    assert "kubectl" in caught.value.cure and str(path) in caught.value.cause


async def test_a_certificate_that_nobody_vouches_for(kube_double: KubeApi, kubeconfig: Path, tmp_path: Path) -> None:
    config = json.loads(kubeconfig.read_text())
    del config["clusters"][0]["cluster"]["certificate-authority-data"]
    kubeconfig.write_text(json.dumps(config))
    async with Cluster.connect(Connection(kubeconfig)) as cluster:
        with pytest.raises(Mistake, match="not trusted"):
            await cluster.get(NAMESPACE, "default")


async def test_another_context(kube_double: KubeApi, kubeconfig: Path) -> None:
    config = json.loads(kubeconfig.read_text())
    config["users"].append({"name": "viewer", "user": {"token": "viewtoken"}})
    config["contexts"].append({"name": "looking", "context": {"cluster": "double", "user": "viewer"}})
    kubeconfig.write_text(json.dumps(config))
    async with Cluster.connect(Connection(kubeconfig, "looking")) as cluster:
        with pytest.raises(Mistake, match="viewer"):
            await cluster.get(NAMESPACE, "default")


async def test_where_it_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}")
    assert Connection().paths() == (tmp_path / "a", tmp_path / "b")
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Connection().paths() == (tmp_path / ".kube" / "config",)
    assert not Connection().in_cluster
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert Connection().in_cluster and not Connection(tmp_path).in_cluster


async def test_the_account_of_a_pod(kube_double: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    rotate(token, "first")
    authority.write_bytes(kube_double.authority)
    host, _, port = kube_double.url.removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr("windfall.servicekit.kube.connection.SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr("windfall.servicekit.kube.connection.SERVICE_CERT_FILENAME", str(authority))
    kube_double.tokens.known["first"] = Identity("pod", MASTERS)
    async with Cluster.connect() as cluster:
        assert await cluster.get(NAMESPACE, "default") is not None
        kube_double.tokens.known["second"] = kube_double.tokens.known.pop("first")
        rotate(token, "second")
        assert await cluster.get(NAMESPACE, "default") is not None
    token.unlink()
    with pytest.raises(Mistake, match="the pod's service account"):
        async with Cluster.connect():
            pass


async def test_who_follows_waits_for_its_role_and_its_kind(
    kube_double: KubeApi, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("windfall.servicekit.kube.follow._LONGEST_PAUSE", timedelta(milliseconds=20))
    heard = asyncio.Queue[str]()

    async def follow(cluster: Cluster, kind: Kind) -> None:
        async for change in cluster.follow(kind, "default"):
            heard.put_nowait(change.verb)

    known = kube_double.tokens.known
    async with Cluster.connect(Connection(kubeconfig)) as cluster, asyncio.timeout(60):
        with pytest.raises(Mistake, match="knows nothing of"):
            await follow(cluster, Kind("none.such", "v1", "None", "nones"))
        following = asyncio.create_task(follow(cluster, CONFIG_MAP))
        assert await heard.get() == "synced"
        known["admintoken"] = Identity("stranger")
        kube_double.store.forget()
        kube_double.faults.cut_watches()
        while not caplog.messages:
            kube_double.store.put(
                Key("", "configmaps", "default", "c"),
                {
                    "kind": "ConfigMap",
                    "apiVersion": "v1",
                    "metadata": {"name": "c", "uid": "c", "namespace": "default"},
                },
            )
            await asyncio.sleep(0.02)
        assert "stranger" in caplog.messages[0] and not following.done()
        known["admintoken"] = Identity("admin", MASTERS)
        while await heard.get() != "present":
            pass
        following.cancel()
