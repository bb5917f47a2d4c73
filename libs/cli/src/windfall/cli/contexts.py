"""Which hub a person speaks to, and with which keys: contexts of one file, as kubectl has them.

The file says where a key lies and never what it is. What is typed, or stands in the environment, counts more than a
context, value by value.
"""

import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from windfall.cli.nearest import near
from windfall.servicekit.errors import ExitCode, Mistake

VARIABLES: Final[Mapping[str, str]] = {
    "server": "WINDFALL_NATS_URL",
    "authority": "WINDFALL_NATS_AUTHORITY",
    "certificate": "WINDFALL_NATS_CERTIFICATE",
    "key": "WINDFALL_NATS_KEY",
    "nkey_file": "WINDFALL_NATS_NKEY_FILE",
    "tls_first": "WINDFALL_NATS_TLS_FIRST",
    "coordinator": "WINDFALL_COORDINATOR",
    "tls_authority": "WINDFALL_TLS_AUTHORITY",
    "tls_certificate": "WINDFALL_TLS_CERTIFICATE",
    "tls_key": "WINDFALL_TLS_KEY",
}
"""Each value of a context, and the variable that counts more than it."""

NAMED: Final = "WINDFALL_CONTEXT"
"""The context that counts in this environment, whatever the file says."""

NONE: Final = "Make one with `windfall context set NAME --server tls://HOST:4222`"
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_SEED: Final = re.compile(r"S[A-Z2-7]{40,}")
_PAIRS: Final = (("certificate", "key"), ("tls_certificate", "tls_key"))
_ADDRESS: Final = re.compile(r"[^\s,:/]+:\d{1,5}")


@dataclass(frozen=True)
class Context:
    """One hub, or one site."""

    name: str
    server: str = ""
    """URL of its NATS server."""
    authority: str = ""
    """PEM file of who signed the server's certificate."""
    certificate: str = ""
    """PEM file of ours."""
    key: str = ""
    """File of its private key."""
    nkey_file: str = ""
    """File of the seed of our nkey."""
    tls_first: bool = False
    """The server begins with TLS."""
    coordinator: str = ""
    """``host:port`` of the coordinator's gRPC door; of several that stand by for each other, with commas between."""
    tls_authority: str = ""
    """PEM file of who signed the coordinator's certificate; this one and the two below are left out where those for the
    NATS server hold there, too."""
    tls_certificate: str = ""
    """PEM file of ours."""
    tls_key: str = ""
    """File of its private key."""


@dataclass(frozen=True)
class Contexts:
    """All that there are, by name, and the one that counts when none is named."""

    all: Mapping[str, Context]
    current: str = ""

    def one(self, name: str) -> Context:
        """The context of this name.

        Raises:
            Mistake: there is none; the nearest is named.
        """
        found = self.all.get(name)
        if found is None:
            raise Mistake(f"unknown context {name!r}", near(name, list(self.all)) if self.all else NONE)
        return found


def place(environ: Mapping[str, str]) -> Path:
    """Where the file lies, as the XDG Base Directory Specification has it."""
    folder = environ.get("XDG_CONFIG_HOME", "")
    # A relative path is to be ignored, says the specification.
    base = Path(folder) if Path(folder).is_absolute() else Path(environ.get("HOME") or "~").expanduser() / ".config"
    return base / "windfall" / "contexts.toml"


def read(path: Path) -> Contexts:
    """What the file says; nothing where there is none.

    Raises:
        Mistake: it cannot be read, others may write to it, or it says what is no context.
    """
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Contexts({})
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(
            f"cannot read the contexts in {path} ({error})", "Mend or remove it", ExitCode.RESOURCE
        ) from error
    if mode & _OTHERS_WRITE:
        # Who writes there chooses whom we speak to.
        raise Mistake(f"others may write to {path}", f"Run `chmod 600 {path}`", ExitCode.RESOURCE)
    # Imported here: without a file nobody needs it.
    import tomllib

    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise Mistake(f"{path} is no TOML ({error})", "Mend the line") from error
    told = document.get("contexts", {})
    if not isinstance(told, dict) or not all(isinstance(one, dict) for one in told.values()):
        raise Mistake(f"{path} has no tables [contexts.NAME]", "Write it with `windfall context set`")
    found = {name: _read_one(path, name, values) for name, values in told.items()}
    return Contexts(found, str(document.get("current", "")))


def chosen(environ: Mapping[str, str], name: str | None = None) -> tuple[Contexts, Context]:
    """All contexts, and the one that is named, here or in the environment, or else the current one.

    Raises:
        Mistake: there is none.
    """
    known = read(place(environ))
    named = name or environ.get(NAMED) or known.current
    if not named:
        raise Mistake("no context counts", "Choose one with `windfall context use`" if known.all else NONE)
    return known, known.one(named)


def changed(known: Contexts, name: str, values: Mapping[str, str | bool]) -> Contexts:
    """With this context made, or its values changed; an empty one takes the value away. The first one becomes current.

    Raises:
        Mistake: a name or a value cannot be used; it would hold a secret; or a context would have no server.
    """
    if not _NAME.fullmatch(name):
        raise Mistake(f"{name!r} cannot name a context", "Use lower-case letters, digits, dots and dashes")
    context = replace(known.all.get(name) or Context(name), **_checked(values))
    if not context.server:
        raise Mistake(f"the context {name} has no server", "Say --server tls://HOST:4222")
    for certificate, key in _PAIRS:
        if bool(getattr(context, certificate)) != bool(getattr(context, key)):
            both = f"Say both --{_typed(certificate)} and --{_typed(key)}"
            raise Mistake(f"the context {name} has a certificate or a key alone", both)
    if (context.tls_certificate or context.tls_authority) and not (context.tls_certificate and context.tls_authority):
        raise Mistake(
            f"the context {name} has a part of what gRPC needs",
            "Say --tls-authority, --tls-certificate and --tls-key together",
        )
    return Contexts({**known.all, name: context}, known.current or name)


def without(known: Contexts, name: str) -> Contexts:
    """Without this context.

    Raises:
        Mistake: there is none of the name.
    """
    known.one(name)
    left = {one: context for one, context in known.all.items() if one != name}
    return Contexts(left, "" if known.current == name else known.current)


def write(path: Path, contexts: Contexts) -> None:
    """Keep them, for this user alone: the whole file at once, or nothing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(in_toml(contexts))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def in_toml(contexts: Contexts) -> str:
    """As the file holds them."""
    lines = [f"current = {_quoted(contexts.current)}"] if contexts.current else []
    for name in sorted(contexts.all):
        context = contexts.all[name]
        lines += ["", f"[contexts.{_quoted(name)}]"]
        for key in VARIABLES:
            if value := getattr(context, key):
                lines.append(f"{key} = {'true' if value is True else _quoted(value)}")
    return "\n".join(lines).lstrip("\n") + "\n"


def variables(context: Context, environ: Mapping[str, str]) -> dict[str, str]:
    """What a context adds to the environment, where that does not say it. A certificate goes with its own key."""
    told = {key for pair in _PAIRS if any(environ.get(VARIABLES[one]) for one in pair) for key in pair}
    return {
        variable: "true" if value is True else str(value)
        for key, variable in VARIABLES.items()
        if (value := getattr(context, key)) and not environ.get(variable) and key not in told
    }


def _read_one(path: Path, name: str, values: Mapping[str, Any]) -> Context:
    for key, value in values.items():
        if key not in VARIABLES:
            raise Mistake(f"{path}: the context {name} has no {key!r}", near(key, list(VARIABLES)))
        if not isinstance(value, bool if key == "tls_first" else str):
            raise Mistake(
                f"{path}: {key} of the context {name} is no {'yes or no' if key == 'tls_first' else 'text'}",
                "Write it with `windfall context set`",
            )
    return Context(name, **values)


def _checked(values: Mapping[str, str | bool]) -> dict[str, Any]:
    known = {one.name for one in fields(Context)}
    assert known >= values.keys()
    return {key: _value(key, value) for key, value in values.items()}


def _value(key: str, value: str | bool) -> str | bool:
    if isinstance(value, bool) or not value:
        return value
    if key == "server":
        url = urlsplit(value)
        if url.scheme not in ("nats", "tls") or not url.hostname:
            raise Mistake(f"{value!r} is no address of a NATS server", "Write tls://HOST:4222, or nats:// on loopback")
        if url.username or url.password:
            raise Mistake(
                "the address holds a password or a token, which has no place in this file",
                "Use an nkey: `windfall nkeys`, and --nkey-file",
            )
        return value
    if key == "coordinator":
        if wrong := [one for one in value.split(",") if not _ADDRESS.fullmatch(one.strip())]:
            raise Mistake(f"{wrong[0]!r} is no address of a coordinator", "Write HOST:PORT")
        return value
    if _SEED.fullmatch(value) or "PRIVATE KEY" in value:
        raise Mistake(f"--{_typed(key)} is a secret itself", "Write it to a file, and give the file's path")
    path = Path(value).expanduser().absolute()
    if not path.is_file():
        raise Mistake(f"there is no file {path}", f"Give the path of a file to --{_typed(key)}", ExitCode.RESOURCE)
    return str(path)


def _typed(key: str) -> str:
    return key.replace("_", "-")


def _quoted(text: str) -> str:
    # A JSON string is a TOML basic string.
    return json.dumps(text, ensure_ascii=False)
