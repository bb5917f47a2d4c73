"""Sites and federations as they are declared on a Kubernetes API server: the only commands that speak to one, beside
`windfall fleet render --dry-run`."""

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import click

from windfall.cli.commands.options import sure, surely, wait_for
from windfall.servicekit.errors import ExitCode, Mistake


def _on_kubernetes(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("-n", "--namespace", metavar="NAME", help="Where none is named.  [default: the kubeconfig's]"),
        click.option("--kubeconfig", type=click.Path(path_type=Path), help="[default: as kubectl finds it]"),
        click.option("--context", metavar="NAME", help="Of the kubeconfig.  [default: its current one]"),
    ):
        command = option(command)
    return command


@click.command()
@click.option(
    "-f", "--file", "files", multiple=True, required=True, metavar="FILE", help="YAML; repeat it. - is stdin."
)
@_on_kubernetes
@click.option("--dry-run", is_flag=True, help="Print what would change, and write nothing.")
@click.option("--force", is_flag=True, help="Take over fields that another owns and wants otherwise.")
@click.option("--wait", "seconds", type=click.FloatRange(min=0), metavar="SECONDS", help="Until all are ready.")
def apply(
    files: tuple[str, ...],
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    dry_run: bool,
    force: bool,
    seconds: float | None,
) -> None:
    """Apply the Sites and Federations of FILE to a Kubernetes API server, as your kubeconfig knows it.

    Everything is looked through here, then tried by the server, and written only when all of it is taken. With
    --dry-run it ends with 0 when nothing would change and with 6 when something would.
    """
    _needs_client()
    from windfall.cli.declared import reading
    from windfall.cli.declared.applying import applied
    from windfall.cli.declared.kinds import KINDS
    from windfall.cli.declared.waiting import Named, until_ready
    from windfall.cli.gitops.difference import different, in_words
    from windfall.servicekit.kube import Connection

    objects, connection = reading.read(files), Connection(kubeconfig=kubeconfig, context=context)
    changes = wait_for(applied(objects, connection, namespace, force=force, dry_run=dry_run))
    if dry_run:
        print(in_words(changes))
        if different(changes):
            raise click.exceptions.Exit(ExitCode.DIFFERENT)
        return
    for one in changes:
        print(f"{one.kind.lower()}/{one.name} {one.state}")
    if seconds is not None:
        kinds = {kind.kind: kind for kind in KINDS}
        named = [Named(kinds[one.kind], one.namespace, one.name) for one in changes]
        wait_for(until_ready(named, connection, timedelta(seconds=seconds), _said))


@click.command()
@click.argument("what", type=click.Choice(["site", "federation"]), metavar="site|federation")
@click.argument("name")
@_on_kubernetes
@sure
@click.option("--wait", "seconds", type=click.FloatRange(min=0), metavar="SECONDS", help="Until it is gone.")
def delete(
    what: str,
    name: str,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    yes: bool,
    seconds: float | None,
) -> None:
    """Delete a Site or a Federation from a Kubernetes API server; it drains before it goes."""
    _needs_client()
    from windfall.cli.declared.deleting import deleted, found
    from windfall.cli.declared.waiting import until_gone
    from windfall.servicekit.kube import Connection

    connection = Connection(kubeconfig=kubeconfig, context=context)
    one, stands = wait_for(found(what, name, connection, namespace))
    surely(f"Delete {one} in the namespace {one.namespace}?", yes)
    if wait_for(deleted(one, stands, connection)):
        print(f"{one} is gone")
        return
    # Whoever reads it through a pipe waits for it as well.
    print(f"{one} goes when it is drained", flush=True)
    if seconds is not None:
        wait_for(until_gone(one, connection, timedelta(seconds=seconds), _said))
        print(f"{one} is gone")


def _needs_client() -> None:
    from importlib.util import find_spec

    if find_spec("kubernetes") is None:
        raise Mistake(
            "Kubernetes' client is not installed", "Run `pip install 'windfall-cli[gitops]'`", ExitCode.RESOURCE
        )


def _said(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
