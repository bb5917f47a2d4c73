"""Reads small files of the kernel: a program of its own, because reading one may hang inside a driver.

Arguments are patterns below a root folder, like ``sys/bus/pci/devices/*/vendor``. Each file is said as one JSON line
``[path, text]`` as soon as it is read, and one that cannot be read as ``[path, null, why]``; before a file is opened
its path alone is said, so that whoever listens knows where a hang happened. A pattern that ends in ``@`` says where
links lead instead.
"""

import glob
import json
import os
import sys

LONGEST = 8192
"""Bytes of a file; what is described here is far shorter."""


def say(*line: object) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201 - standard output is this program's answer


def main(root: str, patterns: list[str]) -> None:
    for pattern in patterns:
        links = pattern.endswith("@")
        for path in sorted(glob.glob(pattern.removesuffix("@"), root_dir=root)):  # noqa: PTH207 - pathlib loads slower
            say(path)
            whole = os.path.join(root, path)  # noqa: PTH118
            try:
                if links:
                    say(path, os.path.relpath(os.path.realpath(whole), os.path.realpath(root)))
                else:
                    with open(whole, "rb") as file:  # noqa: PTH123
                        say(path, file.read(LONGEST).decode(errors="replace").strip())
            except OSError as error:
                say(path, None, error.strerror)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
