"""The command's body: values in, manifests or a diff out."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from windfall.cli.counting import counted
from windfall.cli.gitops import charts, difference, documents
from windfall.cli.gitops.documents import Object
from windfall.cli.gitops.expansion import expanded, our_charts
from windfall.cli.gitops.live import changes
from windfall.servicekit.errors import ExitCode, Mistake


def fleet(values_file: Path, deploy: Path | None = None) -> tuple[str, tuple[Object, ...]]:
    """Name and objects of a fleet, after everything that it would install was rendered once.

    Raises:
        Mistake: a value is wrong, or the charts are not there.
    """
    folder = deploy or charts.DEPLOY
    chart = folder / charts.FLEET
    if not chart.is_dir():
        raise Mistake(f"no charts in {folder}", "Name a checkout's deploy folder with --deploy", ExitCode.RESOURCE)
    values = charts.values_of(values_file)
    name = values.get("fleet")
    made = charts.rendered(chart, values, name if isinstance(name, str) and name else "fleet", "kcm-system")
    objects = documents.in_order(made)
    expanded(objects, our_charts(folder))
    return str(name), objects


def show(values_file: Path, output: str, deploy: Path | None, say: Callable[[str], None]) -> None:
    """Render, and print or write."""
    _, objects = fleet(values_file, deploy)
    if output == "yaml":
        say(documents.in_yaml(objects).rstrip("\n"))
    elif output == "json":
        say(documents.in_json(objects).rstrip("\n"))
    else:
        folder = Path(output)
        if folder.exists() and not folder.is_dir():
            raise Mistake(f"{folder} is a file", "Name yaml, json or a folder", ExitCode.RESOURCE)
        stale = documents.write(documents.in_files(objects), folder)
        gone = f"; took away {len(stale)} that the fleet has no more" if stale else ""
        say(f"wrote {counted(len(objects), 'manifests')} to {folder}{gone}")


def preview(
    values_file: Path,
    output: str,
    deploy: Path | None,
    kubeconfig: Path | None,
    context: str | None,
    say: Callable[[str], None],
) -> ExitCode:
    """Render, ask a server what applying would change, and print that. Nothing is written.

    Returns:
        OK when nothing would change, DIFFERENT when something would.
    """
    name, objects = fleet(values_file, deploy)
    sys.stderr.write(f"asking the API server about {counted(len(objects), 'objects')}\n")
    found = asyncio.run(changes(objects, name, kubeconfig, context))
    say(difference.in_json(found) if output == "json" else difference.in_words(found))
    return ExitCode.DIFFERENT if difference.different(found) else ExitCode.OK
