"""Files of sites and federations, read strictly: what nobody would understand is refused before anything is sent."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError

from windfall.cli.declared.kinds import KINDS, MODELS
from windfall.cli.nearest import near
from windfall.cli.unambiguous import Unambiguous
from windfall.contracts.resources.fields import API_VERSION
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.kube import Object

_TOP: Final = ("apiVersion", "kind", "metadata", "spec")
_METADATA: Final = ("name", "namespace", "labels", "annotations")
"""What a person says of an object itself; the rest is the server's."""
_TOLD: Final = 3
"""Faults of one object that are told at once."""


class _Text(Unambiguous):
    """Leaves instants as they were written, as ``kubectl`` does: the server takes them as text."""


_Text.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in Unambiguous.yaml_implicit_resolvers.items()
}


def read(files: Iterable[str]) -> tuple[Object, ...]:
    """The objects of these files, sites first; ``-`` is what comes on standard input.

    Raises:
        Mistake: a file cannot be read, or holds something else than sites and federations as they are defined.
    """
    found = [obj for file in files for obj in _of_file(file)]
    if not found:
        raise Mistake("there is nothing to apply", "Write a Site or a Federation; deploy/examples holds some")
    seen: set[tuple[str, str, str]] = set()
    for obj in found:
        key = (obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        if key in seen:
            raise Mistake(f"{key[0]}/{key[2]} is there twice", "Leave one of them out")
        seen.add(key)
    order = [kind.kind for kind in KINDS]
    return tuple(sorted(found, key=lambda obj: order.index(obj["kind"])))


def _of_file(file: str) -> list[Object]:
    where = "standard input" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"cannot read {where} ({error})", "Name a file with -f", ExitCode.RESOURCE) from error
    try:
        documents = [one for one in yaml.load_all(text, _Text) if one is not None]
    except (yaml.YAMLError, RecursionError) as error:
        raise Mistake(f"{where} is no YAML ({' '.join(str(error).split())})", "Correct it there") from error
    return [checked(one, where) for one in documents]


def checked(found: Any, where: str) -> Object:
    """An object that the definitions of this version take.

    Raises:
        Mistake: it is none; every fault is told by its place, with the nearest name that there is.
    """
    if not isinstance(found, dict):
        raise Mistake(f"{where} holds something that is no object", "Write a Site or a Federation")
    kind = found.get("kind")
    if not isinstance(kind, str) or kind not in MODELS:
        raise Mistake(f"{where}: {kind!r} is no kind that is applied here", near(str(kind), list(MODELS)))
    if found.get("apiVersion") != API_VERSION:
        raise Mistake(
            f"{where}: {kind} has the apiVersion {found.get('apiVersion')!r}", f"This version knows {API_VERSION}"
        )
    metadata = found.get("metadata")
    if "status" in found:
        raise Mistake(f"{where}: {kind} has a status, which is said by the operator", "Leave it out")
    for place, held, known in (("", found, _TOP), ("metadata.", metadata, _METADATA)):
        for key in held if isinstance(held, dict) else ():
            if key not in known:
                raise Mistake(f"{where}: {kind} has no field {place}{key}", near(str(key), list(known)))
    name = metadata.get("name", "?") if isinstance(metadata, dict) else "?"
    model = MODELS[kind]
    try:
        model.model_validate_json(json.dumps(found), by_alias=True, by_name=False)
    except (ValidationError, TypeError, ValueError, RecursionError) as error:
        faults = _faults(model, error) if isinstance(error, ValidationError) else [str(error)]
        more = f"; and {len(faults) - _TOLD} more" if len(faults) > _TOLD else ""
        raise Mistake(
            f"{where}: {kind} {name} is wrong: {'; '.join(faults[:_TOLD])}{more}", "Mend it; nothing was sent"
        ) from error
    return found


def _faults(model: type[BaseModel], error: ValidationError) -> list[str]:
    schema = model.model_json_schema(by_alias=True)
    faults = []
    for one in error.errors():
        place = _place(one["loc"])
        if one["type"] == "extra_forbidden":
            known = _fields(schema, one["loc"][:-1])
            cure = near(str(one["loc"][-1]), known) if known else ""
            faults.append(f"there is no field {place} ({cure.rstrip('.')})" if cure else f"there is no field {place}")
        elif one["type"] == "missing":
            faults.append(f"{place} is missing")
        else:
            said = one["msg"].removeprefix("Value error, ")
            faults.append(f"{place}: {said[:1].lower()}{said[1:]}" if place else said)
    return faults


def _place(parts: Sequence[int | str]) -> str:
    """As a person points at it: ``spec.pools[0].gpuVendor``."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _fields(schema: dict[str, Any], parts: Sequence[int | str]) -> list[str]:
    """The fields that there are at a place of a model, by its JSON schema."""
    at: list[dict[str, Any]] = [schema]
    for part in parts:
        step: list[dict[str, Any]] = []
        for one in _alternatives(schema, at):
            if isinstance(part, int):
                step += [one["items"]] if isinstance(one.get("items"), dict) else []
            elif part in one.get("properties", {}):
                step.append(one["properties"][part])
            elif isinstance(one.get("additionalProperties"), dict):
                step.append(one["additionalProperties"])
        at = step
    return sorted({name for one in _alternatives(schema, at) for name in one.get("properties", {})})


def _alternatives(schema: dict[str, Any], of: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """With every reference followed, and every choice as one of its own."""
    found: list[dict[str, Any]] = []
    for one in of:
        if "$ref" in one:
            name = str(one["$ref"]).rpartition("/")[2]
            found += _alternatives(schema, [schema["$defs"][name]])
        elif choices := one.get("anyOf") or one.get("oneOf") or one.get("allOf"):
            found += _alternatives(schema, choices)
        else:
            found.append(one)
    return found
