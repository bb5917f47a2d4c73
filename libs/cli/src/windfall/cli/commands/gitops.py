"""A fleet of clusters as manifests."""

from pathlib import Path

import click

from windfall.cli.commands.listing import Listing


@click.group(cls=Listing)
def fleet() -> None:
    """A fleet of clusters as manifests, from one values file."""


@fleet.command("render")
@click.option(
    "-f", "--file", "values_file", required=True, type=click.Path(path_type=Path), help="The fleet's values file."
)
@click.option(
    "-o", "--output", default="yaml", show_default=True, metavar="yaml|json|DIR", help="To print, or a folder to fill."
)
@click.option(
    "--dry-run", is_flag=True, help="Print what applying would change on a live API server, and write nothing."
)
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Of that server.  [default: as kubectl finds it]")
@click.option("--context", metavar="NAME", help="Of the kubeconfig.  [default: its current one]")
@click.option("--deploy", type=click.Path(path_type=Path), help="Folder of the charts.  [default: this checkout's]")
def render_fleet(
    values_file: Path, output: str, dry_run: bool, kubeconfig: Path | None, context: str | None, deploy: Path | None
) -> None:
    """Render a whole fleet: clusters, what they may be made of, and what runs on them.

    \b
    windfall fleet render -f fleet.yaml | kubectl apply --server-side --field-manager=windfall-fleet -f -

    With --dry-run it ends with 0 when nothing would change and with 6 when something would.
    """
    from windfall.cli.gitops import render

    if not dry_run:
        render.show(values_file, output, deploy, print)
    elif code := render.preview(values_file, output, deploy, kubeconfig, context, print):
        raise click.exceptions.Exit(code)
