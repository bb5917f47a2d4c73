"""A stock Flower app: a folder with a ``pyproject.toml`` that names its ServerApp, its ClientApp and its configuration.

Format: https://flower.ai/docs/framework/how-to-configure-pyproject-toml.html. Nothing is installed and nothing is
fetched: the app runs with what is in this environment.
"""

import importlib
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from windfall.servicekit.errors import ExitCode, Mistake

Scalar = bool | int | float | str
RunConfig = dict[str, Scalar]
_PAIR: Final = re.compile(r"(\S+?)=('[^']*'|\"[^\"]*\"|\S+)")


@dataclass(frozen=True)
class AppFolder:
    """What an app says of itself."""

    folder: Path
    name: str
    """``publisher/name``."""
    version: str
    server: str
    """``module:attribute`` of the ServerApp."""
    client: str
    config: Mapping[str, Scalar]
    """Defaults of the run's configuration, flat: nested tables are joined by dots."""


def read_app(folder: Path) -> AppFolder:
    """Read what is in a folder; nothing of it is run.

    Raises:
        Mistake: it is no Flower app of the message API.
    """
    path = folder / "pyproject.toml"
    try:
        parsed = tomllib.loads(path.read_text(encoding="utf-8"))
        app = parsed["tool"]["flwr"]["app"]
        components = app["components"]
        return AppFolder(
            folder.resolve(),
            f"{app.get('publisher', 'unknown')}/{parsed['project']['name']}",
            str(parsed["project"].get("version", "")),
            str(components["serverapp"]),
            str(components["clientapp"]),
            dict(_flat(app.get("config", {}))),
        )
    except OSError as error:
        raise Mistake(
            f"cannot read {path} ({error.strerror})", "Name the folder of a Flower app", ExitCode.USAGE
        ) from error
    except (KeyError, AttributeError, TypeError) as error:
        raise Mistake(
            f"{path} is not that of a Flower app ({error} is missing)",
            "It needs [project] and [tool.flwr.app.components] with serverapp and clientapp",
        ) from error
    except ValueError as error:
        raise Mistake(f"{path}: {error}", "Mend it and start again") from error


def run_config(app: AppFolder, overrides: str) -> RunConfig:
    """The app's configuration with what this run changes, ``key=value`` separated by blanks, values as in TOML.

    Raises:
        Mistake: not like that, or a key that the app does not know.
    """
    config = dict(app.config)
    for key, value in _overrides(overrides).items():
        if key not in config:
            known = ", ".join(sorted(config)) or "none"
            raise Mistake(f"the app {app.name} has no {key!r} in its configuration", f"It has: {known}")
        config[key] = value
    return config


def node_config(text: str) -> RunConfig:
    """A node's own configuration, ``key=value`` like the run's.

    Raises:
        Mistake: not like that.
    """
    return _overrides(text)


def load(app: AppFolder, reference: str, kind: type[Any]) -> Any:
    """Import a component; the app's folder goes first on the path.

    Raises:
        Mistake: it cannot be imported, or is of another kind.
    """
    if str(app.folder) not in sys.path:
        sys.path.insert(0, str(app.folder))
    module, _, attributes = reference.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError) as error:
        raise Mistake(
            f"the app {app.name} cannot be loaded: {error}",
            "Install what it needs into this environment; nothing is fetched here",
            ExitCode.RESOURCE,
        ) from error
    if not isinstance(found, kind):
        raise Mistake(f"{reference} of {app.name} is a {type(found).__name__}", f"It must be a {kind.__name__}")
    return found


def _overrides(text: str) -> RunConfig:
    toml = "\n".join(f"{key} = {value}" for key, value in _PAIR.findall(text))
    if _PAIR.sub("", text).strip():
        raise Mistake(f"{text!r} is not like 'rounds=3 name=\"it\"'", "Separate pairs by blanks; quote texts")
    try:
        return dict(_flat(tomllib.loads(toml)))
    except ValueError as error:
        raise Mistake(f"{text!r}: {error}", 'Write values as in TOML: 3, 0.1, true, "text"') from error


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Scalar]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        elif isinstance(value, bool | int | float | str):
            yield f"{before}{key}", value
        else:
            raise ValueError(f"{before}{key} is {json.dumps(value, default=str)[:40]}, not a number, text or boolean")
