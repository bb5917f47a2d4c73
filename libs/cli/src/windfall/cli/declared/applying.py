"""``windfall apply``: server-side apply of what a person declares, after the server has tried all of it."""

from collections.abc import Sequence

from windfall.cli.declared.kinds import KINDS, MANAGER, away, namespace_of
from windfall.cli.gitops.difference import Change, change
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.kube import Cluster, Conflict, Connection, Object

_BY_KIND = {kind.kind: kind for kind in KINDS}
_FORCE = "Say --force to take the field over; `kubectl get -o yaml --show-managed-fields` shows whose it is"


async def applied(
    objects: Sequence[Object], connection: Connection, namespace: str | None, *, force: bool, dry_run: bool
) -> list[Change]:
    """What applying changes, of each object. All of them are tried before one is written.

    Args:
        namespace: of those that name none; none is the kubeconfig's.
        force: take over what another owns and wants otherwise.
        dry_run: write nothing.

    Raises:
        Mistake: the server cannot be reached or refuses, or somebody else owns a field and wants it otherwise.
    """
    placed = [_placed(obj, namespace or namespace_of(connection)) for obj in objects]
    try:
        async with Cluster.connect(connection) as cluster:
            found = [await _tried(cluster, obj, force) for obj in placed]
            for obj, tried in zip(placed, found, strict=True):
                if not dry_run and tried.state != "unchanged":
                    await cluster.apply(_BY_KIND[obj["kind"]], obj, manager=MANAGER, force=force)
            return found
    except Conflict as conflict:
        raise Mistake(f"somebody else wants it otherwise ({conflict})", _FORCE, ExitCode.FAILED) from conflict
    except Transient as error:
        raise away(error) from error


def _placed(obj: Object, namespace: str) -> Object:
    metadata = obj["metadata"]
    return {**obj, "metadata": {**metadata, "namespace": metadata.get("namespace") or namespace}}


async def _tried(cluster: Cluster, obj: Object, force: bool) -> Change:
    kind, metadata = _BY_KIND[obj["kind"]], obj["metadata"]
    before = await cluster.get(kind, metadata["name"], metadata["namespace"])
    after = await cluster.apply(kind, obj, manager=MANAGER, force=force, dry_run=True)
    return change(before, after, "file")
