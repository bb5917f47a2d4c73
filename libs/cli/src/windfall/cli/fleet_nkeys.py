"""Every nkey of a fleet that one machine starts in containers, each in the folder of who has it, and what the NATS
servers are told of them: ``python -m windfall.cli.fleet_nkeys FOLDER SITE...``.

``FOLDER/DOMAIN/SERVICE/SERVICE.nk`` is a seed, ``FOLDER/DOMAIN/nats/nkeys.conf`` what that domain's server includes. A
trainer is a process of its site's provisioner, so its seed lies with that one's.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from windfall.cli.nkeys import made
from windfall.contracts.message import Name
from windfall.contracts.subjects import HUB, HUB_SERVICES, SITE_SERVICES
from windfall.servicekit.errors import Mistake
from windfall.servicekit.nats_rules import ADMIN, accounts

SERVER: Final = "nats"
CONFIG: Final = "nkeys.conf"
LEAF: Final = "leaf"
_WITH: Final = {"site-trainer": "provisioner"}
"""Service → whose process it is."""


def laid_out(folder: Path, sites: Sequence[str]) -> None:
    """Make what is not there yet.

    Raises:
        Mistake: a site's name is none, or a file that lies there holds no seed.
        OSError: a folder cannot be written.
    """
    for site in sites:
        try:
            TypeAdapter(Name).validate_python(site)
        except ValidationError as error:
            raise Mistake(f"{site!r} names no site", "Write it as its services are told") from error
        users = {name: _key(folder / site / _WITH.get(name, name), name) for name in SITE_SERVICES}
        leaf = folder / site / SERVER
        _key(leaf, LEAF)
        seed = (leaf / f"{LEAF}.nk").read_text(encoding="ascii").strip()
        _write(leaf / CONFIG, f'LEAF_SEED: "{seed}"\n{accounts(site, users)}')
    users = {name: _key(folder / HUB / name, name) for name in (*HUB_SERVICES, ADMIN)}
    leaves = {site: _key(folder / site / SERVER, LEAF) for site in sites}
    server = folder / HUB / SERVER
    server.mkdir(parents=True, exist_ok=True)
    _write(server / CONFIG, accounts(HUB, users, leaves))


def _key(folder: Path, name: str) -> str:
    """The public key of a user, whose seed is made where there is none."""
    (line,) = made(folder, [name])
    return line.partition(": ")[2]


def _write(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)


def main(words: Sequence[str]) -> int:
    """Lay them out."""
    if len(words) < 2:
        sys.stderr.write("windfall fleet_nkeys: say FOLDER SITE...\n")
        return 2
    try:
        laid_out(Path(words[0]), words[1:])
    except Mistake as mistake:
        sys.stderr.write(f"windfall fleet_nkeys: {mistake}\n")
        return mistake.exit_code
    except OSError as error:
        sys.stderr.write(f"windfall fleet_nkeys: cannot write {error.filename} ({error.strerror})\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
