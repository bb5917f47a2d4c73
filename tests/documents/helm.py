"""Helm where its program is not installed: the same engine (Helm's Go SDK) by its Python binding, as far as pages go.

``helm upgrade --install NAME CHART -n NAMESPACE -f FILE...``, where NAME is not installed yet.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import helm_python
import yaml


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("helm")
    parser.add_argument("does", choices=["upgrade"])
    parser.add_argument("--install", action="store_true", required=True)
    parser.add_argument("name")
    parser.add_argument("chart", type=Path)
    parser.add_argument("-n", "--namespace", required=True)
    parser.add_argument("-f", "--values", type=Path, action="append", default=[])
    asked = parser.parse_args(words)
    values: dict[str, Any] = {}
    for path in asked.values:
        values = laid_over(values, yaml.safe_load(path.read_text(encoding="utf-8")))
    # Releases are remembered in memory alone: the engine speaks protobuf about them, which the double does not.
    config = helm_python.Config(
        kubeconfig_path=os.environ["KUBECONFIG"], namespace=asked.namespace, storage_driver="memory"
    )
    # The engine complains of every link that it follows: it gets a copy that has none.
    with TemporaryDirectory() as folder:
        chart = shutil.copytree(asked.chart, Path(folder) / asked.chart.name)
        config.install(chart, asked.name, values, namespace=asked.namespace)
    print(f'Release "{asked.name}" does not exist. Installing it now.')
    return 0


def laid_over(below: Any, above: Any) -> Any:
    """Values over values, as Helm does it: mappings are merged, anything else is replaced."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{name: laid_over(below.get(name), value) for name, value in above.items()}}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
