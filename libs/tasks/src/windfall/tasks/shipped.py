"""Public data small enough to travel with the package; a README beside each says whence and under which licence."""

from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent / "data"


def shipped(name: str) -> Path:
    """The folder of a data set: ``fashion-mnist-sprite`` (for ``resnet``), ``cora`` (for ``gcn``).

    Raises:
        ValueError: none of that name ships.
    """
    known = sorted(path.name for path in _HERE.iterdir() if path.is_dir())
    if name not in known:
        raise ValueError(f"no data set {name!r} ships; there are {', '.join(known)}")
    return _HERE / name
