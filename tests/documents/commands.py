"""The commands that a document names, and what is wrong with them by the command's own parser. Pure."""

import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import click

from tests.documents.page import Page

_APART: Final = re.compile(r"\s\|\s|&&|\|\||;\s|\$\(|\n|\)$|\s&$")
_ASSIGNED: Final = re.compile(r"[A-Z_]+=\S*")
_PLACEHOLDER: Final = re.compile(r"[A-Z][A-Z_.\-]*|<.*>|….*|\.\.\.")


def typed(page: Page, program: str) -> Iterator[list[str]]:
    """The words after a program's name, wherever the page types it: in a snippet, or in its text as code."""
    fences = [
        each.text.replace("\\\n", " ") for each in page.snippets if each.language in ("", "sh", "text", "console")
    ]
    for text in (*fences, *page.code):
        for part in _APART.split(text):
            words = _words(part)
            while words and (words[0] == "$" or _ASSIGNED.fullmatch(words[0])):
                words.pop(0)
            if words[:1] == [program] and len(words) > 1 and not words[1][0].isdigit():
                yield words[1:]


def _words(part: str) -> list[str]:
    try:
        return shlex.split(part, comments=True)
    except ValueError:
        # Half of a quotation: words between blanks are what there is.
        return part.split()


def wrong(command: click.Command, words: Sequence[str], name: str = "windfall") -> str | None:
    """What is wrong with these words; none when the command could be typed so. ``a|b`` is either, ``[…]`` may be left
    out, and what stands in capitals is a reader's own."""
    plain = [word.strip("[]`,") for word in words]
    if isinstance(command, click.Group):
        if not plain or plain[0].startswith("-"):
            return _options(command, plain, name)
        context = click.Context(command, info_name=name)
        for one in plain[0].split("|"):
            # A group may load its commands when they are asked for.
            if (found := command.get_command(context, one)) is None:
                return None if _PLACEHOLDER.fullmatch(one) else f"`{name}` has no {one!r}"
            if said := wrong(found, plain[1:], f"{name} {one}"):
                return said
        return None
    return _options(command, plain, name)


def _options(command: click.Command, words: Sequence[str], name: str) -> str | None:
    context = click.Context(command, info_name=name)
    known = {flag: each for each in command.get_params(context) for flag in (*each.opts, *each.secondary_opts)}
    flags = {flag for flag in known if flag.startswith("-")} | {"-h", "--help"}
    for word, value in pairwise([*words, ""]):
        flag, equals, told = word.partition("=")
        if not flag.startswith("-") or flag == "-":
            continue
        if flag not in flags:
            return f"`{name}` has no option {flag}"
        kind = getattr(known.get(flag), "type", None)
        given = told if equals else value
        choices = kind.choices if isinstance(kind, click.Choice) and not _PLACEHOLDER.fullmatch(given) else None
        if choices is not None and (strange := [one for one in given.split("|") if one not in choices]):
            return f"`{name} {flag}` cannot be {strange[0]!r}"
    return None
