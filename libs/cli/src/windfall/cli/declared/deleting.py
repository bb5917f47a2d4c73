"""``windfall delete``: ask for the end of a site or a federation; its finalizer lets it drain before it goes."""

from windfall.cli.declared.kinds import FEDERATION, SITE, away, namespace_of
from windfall.cli.declared.waiting import Named
from windfall.cli.nearest import near
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.kube import Cluster, Conflict, Connection, Object

_KINDS = {"site": SITE, "federation": FEDERATION}


async def found(what: str, name: str, connection: Connection, namespace: str | None) -> tuple[Named, Object]:
    """The object that a person means, and as it stands.

    Args:
        what: ``site`` or ``federation``.
        namespace: none is the kubeconfig's.

    Raises:
        Mistake: there is none of the name, and the nearest is named; or the server cannot be reached.
    """
    one = Named(_KINDS[what], namespace or namespace_of(connection), name)
    try:
        async with Cluster.connect(connection) as cluster:
            stands = await cluster.get(one.kind, name, one.namespace)
            if stands is not None:
                return one, stands
            known = [each["metadata"]["name"] for each in (await cluster.list(one.kind, one.namespace)).items]
    except Transient as error:
        raise away(error) from error
    cure = near(name, known) if known else "There is none in it; name another namespace with -n"
    raise Mistake(f"there is no {what} {name!r} in the namespace {one.namespace}", cure, ExitCode.FAILED)


async def deleted(one: Named, stands: Object, connection: Connection) -> bool:
    """Ask for the end of this very object; whether it has gone already.

    Raises:
        Mistake: another one of its name is there now, or the server cannot be reached.
    """
    try:
        async with Cluster.connect(connection) as cluster:
            await cluster.delete(one.kind, one.name, one.namespace, uid=stands["metadata"]["uid"])
            return await cluster.get(one.kind, one.name, one.namespace) is None
    except Conflict as conflict:
        raise Mistake(
            f"{one} is another one now ({conflict})", "Look at it, and delete it again", ExitCode.FAILED
        ) from conflict
    except Transient as error:
        raise away(error) from error
