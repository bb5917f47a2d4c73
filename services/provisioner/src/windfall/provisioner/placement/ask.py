"""A question of placement from files: a need, and sites with their nodes, pods and profiles as ``kubectl`` and
``windfall events`` write them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from windfall.contracts.events import NodeProfiled
from windfall.contracts.jurisdiction import Jurisdiction
from windfall.contracts.message import Name
from windfall.provisioner.placement.decision import Placement
from windfall.provisioner.placement.explanation import Verdict
from windfall.provisioner.placement.need import Need
from windfall.provisioner.placement.nodes import node_capacities
from windfall.provisioner.placement.profile import Profile
from windfall.provisioner.placement.site import Site
from windfall.servicekit.errors import Mistake

_CURE = "Write it as docs/placement.md shows"


class _Place(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    site: Name
    jurisdiction: Jurisdiction | None = None
    nodes: Path
    """Of ``kubectl get nodes -o json``."""
    pods: Path | None = None
    """Of ``kubectl get pods -A -o json``; without it nothing is taken to run."""
    profiles: Path | None = None
    """Lines of ``node.profiled``, a JSON object each; the newest of a node counts."""


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    need: dict[str, Any] = Field(default_factory=dict)
    sites: tuple[_Place, ...] = Field(min_length=1)


def read(path: Path) -> tuple[Need, tuple[Site, ...]]:
    """A question and all that it refers to; paths in it are taken from its folder.

    Raises:
        Mistake: a file is missing, or is not what it should be.
    """
    try:
        question = _Question.model_validate(yaml.safe_load(_text(path)))
        need = TypeAdapter(Need).validate_python(question.need)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise Mistake(f"{path.name} asks nothing that can be answered ({_first(error)})", _CURE) from error
    return need, tuple(_site(place, path.parent) for place in question.sites)


def _site(place: _Place, folder: Path) -> Site:
    nodes = _items(folder / place.nodes)
    pods = _items(folder / place.pods) if place.pods else []
    profiles = _profiles(folder / place.profiles, place.site) if place.profiles else {}
    try:
        capacities = node_capacities(nodes, pods)
    except (KeyError, TypeError, AttributeError) as error:
        raise Mistake(f"{place.nodes} holds no Node objects ({error!r})", _CURE) from error
    return Site(place.site, capacities, place.jurisdiction or "", profiles)


def _profiles(path: Path, site: str) -> dict[str, Profile]:
    newest: dict[str, NodeProfiled] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            said = NodeProfiled.model_validate_json(line)
        except ValidationError as error:
            raise Mistake(f"line {number} of {path.name} is no node.profiled ({_first(error)})", _CURE) from error
        if said.site == site and (said.node not in newest or said.at >= newest[said.node].at):
            newest[said.node] = said
    return {node: Profile.of(said) for node, said in newest.items()}


def _items(path: Path) -> list[Any]:
    try:
        found = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise Mistake(f"{path.name} is no JSON ({error})", _CURE) from error
    if not isinstance(found, dict) or not isinstance(found.get("items"), list):
        raise Mistake(f"{path.name} is no list of Kubernetes objects", "Write it with kubectl get ... -o json")
    items: list[Any] = found["items"]
    return items


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"cannot read {path} ({error})", "Name a file that this user may read") from error


def _first(error: ValueError | yaml.YAMLError | RecursionError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return " ".join(str(error).split())


def in_words(verdicts: tuple[Verdict, ...]) -> str:
    """A table for a person: site, node, and why."""
    rows = [("", "SITE", "NODE", "WHY")]
    rows += [("*" if said.chosen else "", said.site, said.node or "-", said.why) for said in verdicts]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ("  ".join((*(row[at].ljust(widths[at]) for at in range(3)), row[3])) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def in_json(placed: Placement | None, verdicts: tuple[Verdict, ...]) -> str:
    """One object: ``placement`` (none when nobody takes the gang) and ``verdicts``."""
    answer = {"placement": asdict(placed) if placed else None, "verdicts": [asdict(said) for said in verdicts]}
    return json.dumps(answer, indent=2, ensure_ascii=False)
