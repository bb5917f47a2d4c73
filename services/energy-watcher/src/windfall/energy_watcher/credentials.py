"""Credentials: from the environment or a mounted file, and never shown."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from windfall.servicekit.errors import ExitCode, Mistake


def credential(name: str, environ: Mapping[str, str]) -> SecretStr:
    """The credential of a variable, or of the file that ``<name>_FILE`` names; one trailing newline is not part of it.

    Raises:
        Mistake: there is none, there are two, the file cannot be read, or it cannot stand in an HTTP header.
    """
    found = optional_credential(name, environ)
    if found is None:
        raise Mistake(f"{name} is missing", f"Set it, or set {name}_FILE to a file that holds it")
    return found


def optional_credential(name: str, environ: Mapping[str, str]) -> SecretStr | None:
    """Like :func:`credential`, but none when neither variable is set."""
    given, file = environ.get(name), environ.get(f"{name}_FILE")
    if given and file:
        raise Mistake(f"{name} and {name}_FILE are both set", "Keep one of the two")
    if not given and not file:
        return None
    text = given or _content(f"{name}_FILE", Path(file or ""))
    if not text or not text.isascii() or not text.isprintable():
        raise Mistake(
            f"{name} is empty, or holds a line break or another character that cannot be sent",
            "Give one line of printable ASCII",
        )
    return SecretStr(text)


def _content(variable: str, path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Mistake(
            f"cannot read {path} ({error.strerror})",
            f"Set {variable} to a file that this user may read",
            ExitCode.RESOURCE,
        ) from error
    except UnicodeDecodeError:
        # The decoder's error carries the bytes, and they may be the credential.
        raise Mistake(f"{path} is not text", f"Set {variable} to a file with one line of text") from None
    return text.removesuffix("\n").removesuffix("\r")
