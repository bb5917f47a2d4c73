"""Manifests as values: read from what an engine gave, put in one order, and written for people and tools."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from windfall.servicekit.errors import Mistake

Object = dict[str, Any]

ORDER: Final = (
    "Namespace",
    "HelmRepository",
    "ClusterTemplate",
    "ServiceTemplate",
    "ClusterTemplateChain",
    "ServiceTemplateChain",
    "Credential",
    "ClusterDeployment",
    "MultiClusterService",
)
"""What refers to something stands behind it."""


def read(text: str, where: str) -> list[Object]:
    """The objects of a rendered file; empty documents are none.

    Raises:
        Mistake: it is no YAML, or holds something else than objects.
    """
    try:
        found = [each for each in yaml.safe_load_all(text) if each is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: a day that no calendar has, in what YAML takes for a date.
        raise Mistake(f"{where} renders no YAML ({' '.join(str(error).split())})", "Correct the template") from error
    for each in found:
        if not _is_object(each):
            raise Mistake(f"{where} renders something that is no object", "Correct the template")
    return found


def _is_object(found: object) -> bool:
    """Whether an API server could take it."""
    if not isinstance(found, dict) or not {"apiVersion", "kind", "metadata"} <= found.keys():
        return False
    metadata = found["metadata"]
    named = isinstance(metadata, dict) and isinstance(metadata.get("name"), str)
    return named and isinstance(metadata.get("namespace", ""), str) and isinstance(found["kind"], str)


def in_order(objects: Iterable[Object]) -> tuple[Object, ...]:
    """By kind, namespace and name: the same objects are the same text, whatever gave them."""

    def place(obj: Object) -> tuple[int, str, str, str]:
        kind, metadata = obj["kind"], obj["metadata"]
        rank = ORDER.index(kind) if kind in ORDER else len(ORDER)
        return (rank, kind, metadata.get("namespace", ""), metadata["name"])

    return tuple(sorted(objects, key=place))


def in_yaml(objects: Iterable[Object]) -> str:
    """One stream of documents."""
    return "".join(f"---\n{one_in_yaml(obj)}" for obj in objects)


def in_json(objects: Iterable[Object]) -> str:
    """One ``List``, as ``kubectl apply -f`` takes it."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}, indent=2, ensure_ascii=False) + "\n"


def in_files(objects: Iterable[Object]) -> dict[str, str]:
    """A file for each object: its name → its text."""
    return {f"{obj['kind'].lower()}-{obj['metadata']['name']}.yaml": one_in_yaml(obj) for obj in objects}


def write(files: Mapping[str, str], folder: Path) -> tuple[str, ...]:
    """Make a folder hold these files, and no other manifest that was written before.

    Returns:
        Names of the files that were taken away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stale = sorted(path.name for path in folder.glob("*.yaml") if path.name not in files and _ours(path))
    for name in stale:
        (folder / name).unlink()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return tuple(stale)


def _ours(path: Path) -> bool:
    return "app.kubernetes.io/managed-by: windfall\n" in path.read_text(encoding="utf-8", errors="replace")


class _Block(yaml.SafeDumper):
    """Texts of several lines stay readable."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Block.add_representer(str, _text)


def one_in_yaml(obj: object) -> str:
    """One document, keys as they were given."""
    text: str = yaml.dump(obj, Dumper=_Block, sort_keys=False, allow_unicode=True, width=120)
    return text
