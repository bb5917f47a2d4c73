"""Nkeys by which a NATS server knows its users: the seeds in files of their own, the public keys as the charts take
them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from windfall.contracts.message import Name
from windfall.servicekit import nkey
from windfall.servicekit.errors import Mistake


def made(folder: Path, names: Sequence[str]) -> Iterator[str]:
    """Make FOLDER/NAME.nk for each name that has none, and say ``NAME: PUBLIC`` for each.

    Raises:
        Mistake: a name is none, or a file that lies there holds no seed.
        OSError: the folder cannot be written.
    """
    for name in names:
        try:
            TypeAdapter(Name).validate_python(name)
        except ValidationError as error:
            raise Mistake(f"{name!r} names no user", "Write the name of a service or a site, or leaf") from error
        path = folder / f"{name}.nk"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            # Never to be read by somebody else, not even before it is written.
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(nkey.new().seed + "\n")
        yield f"{name}: {nkey.read(path).public}"
