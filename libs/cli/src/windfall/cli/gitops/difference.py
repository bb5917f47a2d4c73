"""How an object on a server would change, as lines that a person reads. Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Final, Literal

import yaml

from windfall.cli.gitops.documents import Object

State = Literal["created", "changed", "unchanged", "surplus", "refused"]

_SERVERS: Final = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink")
"""Of the metadata: what the server keeps for itself."""


@dataclass(frozen=True)
class Change:
    """What applying would do to one object. ``surplus``: the server has it, the fleet does not; applying leaves it."""

    kind: str
    namespace: str
    name: str
    state: State
    diff: str = ""
    why: str = ""
    """Of a refusal, in the server's words."""


def change(before: Object | None, after: Object, source: str = "fleet") -> Change:
    """The change from what is there, if anything is, to what a dry run of applying gives.

    Args:
        source: where what is applied comes from, in a word.
    """
    metadata = after["metadata"]
    diff = _diff(_readable(before), _readable(after), f"{after['kind']}/{metadata['name']}", source)
    state: State = "created" if before is None else "changed" if diff else "unchanged"
    return Change(after["kind"], metadata.get("namespace", ""), metadata["name"], state, diff)


def in_words(changes: Sequence[Change]) -> str:
    """A diff for each object that changes, then a table of all, then the count of each state."""
    diffs = "".join(f"{each.diff}\n" for each in changes if each.diff)
    rows = [("STATE", "KIND", "NAMESPACE", "NAME", "")]
    rows += [(each.state, each.kind, each.namespace or "-", each.name, each.why) for each in changes]
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    table = "\n".join("  ".join([*(row[at].ljust(widths[at]) for at in range(4)), row[4]]).rstrip() for row in rows)
    return f"{diffs}{table}\n\n{summary(changes)}"


def summary(changes: Sequence[Change]) -> str:
    states: tuple[State, ...] = ("created", "changed", "unchanged", "surplus", "refused")
    counts = {state: sum(each.state == state for each in changes) for state in states}
    said = [f"{count} {state}" for state, count in counts.items() if count or state in states[:3]]
    return f"{', '.join(said)}. Nothing was written."


def in_json(changes: Sequence[Change]) -> str:
    """A list of changes."""
    return json.dumps([vars(each) for each in changes], indent=2, ensure_ascii=False)


def different(changes: Sequence[Change]) -> bool:
    return any(each.state != "unchanged" for each in changes)


def _readable(obj: Object | None) -> list[str]:
    if obj is None:
        return []
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _SERVERS}
    shown = {**{key: value for key, value in obj.items() if key != "status"}, "metadata": metadata}
    text: str = yaml.safe_dump(shown, sort_keys=True, allow_unicode=True, width=120)
    return text.splitlines()


def _diff(before: list[str], after: list[str], name: str, source: str) -> str:
    lines = unified_diff(before, after, f"live/{name}" if before else "nothing", f"{source}/{name}", lineterm="")
    return "\n".join(lines)
