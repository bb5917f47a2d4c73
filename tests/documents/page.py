"""A page's snippets, and what is to be done with each of them. Pure.

A fence says it after its language:

========================  =============================================================================================
``sh``                    type it; it ends with 0
``sh ends=6``             type it; it ends with 6
``sh terminal``           type it in a terminal of its own, where it runs until the page ends
``text output``           what the one before prints, line by line in this order; ``…`` stands for anything
``python file=x.py``      a file of this content, whatever its language
========================  =============================================================================================

A comment before a fence, ``<!-- not run: WHY -->``, says what no test can do and why. ``<!-- tested with: 4222=port,
hub.example.org=localhost -->`` anywhere says what the page's names are in a test: ``port`` is a free one.
``<!-- needs: kubectl -->`` names programs without which the page is skipped. ``<!-- trains: HOW LONG -->`` leaves it to
``make tutorials``.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT: Final = Path(__file__).resolve().parents[2]
SHELL: Final = ("sh", "bash", "shell", "console")
_COMMENT: Final = re.compile(r"<!--\s*(not run|tested with|needs|trains):\s*(.*?)\s*-->", re.DOTALL)

Role = Literal["type", "terminal", "output", "file", "shown"]


@dataclass(frozen=True)
class Snippet:
    """One fence."""

    line: int
    """In the page, from 1, of its first line of text."""
    language: str
    text: str
    options: Mapping[str, str]
    """What follows the language: ``file=x.py`` by its name, a lone word with no value."""
    not_run: str | None = None
    """Why no test can do it."""

    @property
    def role(self) -> Role:
        """What a reader does with it; ``shown`` is only read."""
        if "file" in self.options:
            return "file"
        if "output" in self.options:
            return "output"
        if self.language in SHELL and self.not_run is None:
            return "terminal" if "terminal" in self.options else "type"
        return "shown"


@dataclass(frozen=True)
class Page:
    """What a document holds."""

    path: Path
    title: str
    snippets: tuple[Snippet, ...]
    links: tuple[str, ...]
    """Targets of links and pictures, in order."""
    anchors: frozenset[str]
    """What a link into the page may name."""
    code: tuple[str, ...]
    """Every inline code."""
    tested_with: Mapping[str, str]
    needs: tuple[str, ...]
    trains: str
    """How long it trains for real; empty when it does not."""


def page(path: Path) -> Page:
    """Read one document.

    Raises:
        ValueError: a comment has no reason, or names nothing.
    """
    text = path.read_text(encoding="utf-8")
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    said = [(kind, rest) for kind, rest in _COMMENT.findall(text)]
    inline = [child for token in tokens for child in token.children or ()]
    headings = [token.content for before, token in pairwise(tokens) if before.type == "heading_open"]
    return Page(
        path=path,
        title=headings[0] if headings else "",
        snippets=tuple(_snippets(tokens)),
        links=tuple(str(each.attrs.get("href", each.attrs.get("src"))) for each in inline if each.type in _TARGETS),
        anchors=frozenset(map(slug, headings)) | frozenset(re.findall(r'<a id="([^"]+)"', text)),
        code=tuple(each.content for each in inline if each.type == "code_inline"),
        tested_with=dict(_pair(pair, path) for kind, rest in said if kind == "tested with" for pair in rest.split(",")),
        needs=tuple(word.strip() for kind, rest in said if kind == "needs" for word in rest.split(",")),
        trains=next((rest for kind, rest in said if kind == "trains"), ""),
    )


_TARGETS: Final = ("link_open", "image")


def slug(heading: str) -> str:
    """The anchor of a heading, as forges make it."""
    plain = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def documents() -> Sequence[Path]:
    """Every document of the repository that people read."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _snippets(tokens: Sequence[Token]) -> Iterator[Snippet]:
    reason: str | None = None
    for token in tokens:
        if token.type == "html_block":
            found = dict(_COMMENT.findall(token.content))
            reason = found.get("not run")
        elif token.type == "fence":
            assert token.map is not None
            language, *words = token.info.split() or [""]
            options = {name: value for name, _, value in (word.partition("=") for word in words)}
            yield Snippet(token.map[0] + 2, language, token.content, options, reason)
            reason = None
        elif token.type == "code_block":
            assert token.map is not None
            yield Snippet(token.map[0] + 1, "", token.content, {}, reason)
            reason = None
        elif token.type.endswith("_open"):
            reason = None


def _pair(text: str, path: Path) -> tuple[str, str]:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not (name and equals and value):
        raise ValueError(f"{path.name}: {text!r} does not say what a name is in a test, like 4222=port")
    return name, value
