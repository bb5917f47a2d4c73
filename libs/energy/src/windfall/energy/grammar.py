"""The text of a surplus rule, read by recursive descent.

rule      = each, {"or", each}
each      = term, {"and", term}
term      = "(", rule, ")" | name, ("<" | ">"), threshold, ["..", threshold]
threshold = number | "p", rank, ["@", span] | "ahead", rank, ["@", span]
span      = digits, ("m" | "h" | "d")
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from windfall.energy.rule import (
    LOOK_AHEAD,
    LOOK_BACK,
    SIGNAL,
    Absolute,
    And,
    Limit,
    Or,
    Percentile,
    Rule,
    Threshold,
    usual_close,
)

DEEPEST: Final = 20
"""Parentheses within parentheses; nobody can read more."""
LONGEST_TEXT: Final = 4000
"""Characters."""

_TOKEN: Final = re.compile(
    r"""(?P<band>\.\.)
    | (?P<moving>(?P<of>p|ahead)(?P<rank>\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?:@(?P<span>\d{1,6})(?P<unit>[mhd]))?(?![\w@-]))
    | (?P<number>[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w@-]))
    | (?P<word>[a-z](?:[a-z0-9-]*[a-z0-9])?(?![\w@-]))
    | (?P<mark>[()<>])
    | (?P<wrong>[^\s()<>]+)""",
    re.VERBOSE,
)
_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_LIMIT: Final = "write a limit like carbon < 100..150"
_THRESHOLD: Final = "write a number like 100, p25 for a percentile of the history, or ahead25 of the forecast"


class RuleError(ValueError):
    """A rule cannot be read: where and why, and what to do, in one line."""

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(f"{cause}; {cure}")
        self.cause = cause
        self.cure = cure


def parse(text: str) -> Rule:
    """Read a rule.

    Raises:
        RuleError: it is not one; the first mistake ends the reading.
    """
    if len(text) > LONGEST_TEXT:
        raise RuleError(f"the rule has {len(text)} characters", f"use at most {LONGEST_TEXT}")
    return _Reader(text, list(_TOKEN.finditer(text))).whole()


@dataclass
class _Reader:
    """A place in the tokens of a text."""

    text: str
    tokens: list[re.Match[str]]
    place: int = 0
    depth: int = 0

    def whole(self) -> Rule:
        rule = self._any()
        if self._peek():
            raise self._wrong("'and', 'or' or the end is missing", "join limits with and / or")
        return rule

    def _any(self) -> Rule:
        parts = [self._all()]
        while self._took("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _all(self) -> Rule:
        parts = [self._term()]
        while self._took("and"):
            parts.append(self._term())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _term(self) -> Rule:
        if not self._took("("):
            return self._limit()
        self.depth += 1
        if self.depth > DEEPEST:
            raise self._wrong("too many parentheses within each other", f"use at most {DEEPEST}")
        rule = self._any()
        if not self._took(")"):
            raise self._wrong("')' is missing", "close what '(' opened")
        self.depth -= 1
        return rule

    def _limit(self) -> Limit:
        begin, name = self.place, self._peek()
        if not SIGNAL.fullmatch(name):
            raise self._wrong("the name of a signal is missing", _LIMIT)
        self.place += 1
        comparison: Literal["<", ">"] = "<" if self._peek() == "<" else ">"
        if not self._took(comparison):
            raise self._wrong("'<' or '>' is missing", _LIMIT)
        opens = self._threshold()
        closes = self._threshold() if self._took("..") else usual_close(comparison, opens)
        try:
            return Limit(name, comparison, opens, closes)
        except ValueError as error:
            raise self._refused(error, begin) from error

    def _threshold(self) -> Threshold:
        token = self.tokens[self.place] if self.place < len(self.tokens) else None
        if token is None or not (token["number"] or token["moving"]):
            raise self._wrong("a threshold is missing", _THRESHOLD)
        self.place += 1
        try:
            return Absolute(float(token["number"])) if token["number"] else _moving(token)
        except ValueError as error:
            raise self._refused(error, self.place - 1) from error

    def _peek(self) -> str:
        return self.tokens[self.place][0] if self.place < len(self.tokens) else ""

    def _took(self, word: str) -> bool:
        found = self._peek() == word
        self.place += found
        return found

    def _wrong(self, cause: str, cure: str) -> RuleError:
        return RuleError(f"{self._where(self.place)}: {cause}", cure)

    def _refused(self, error: Exception, place: int) -> RuleError:
        cause, _, cure = str(error).partition("; ")
        return RuleError(f"{self._where(place)}: {cause}", cure)

    def _where(self, place: int) -> str:
        if place >= len(self.tokens):
            return f"at the end of {_short(self.text)!r}"
        token = self.tokens[place]
        return f"column {token.start() + 1}, at {_short(self.text[token.start() :])!r}"


def _moving(token: re.Match[str]) -> Percentile:
    of: Literal["history", "forecast"] = "history" if token["of"] == "p" else "forecast"
    usual = LOOK_BACK if of == "history" else LOOK_AHEAD
    span = int(token["span"]) * _UNITS[token["unit"]] if token["span"] else usual
    return Percentile(float(token["rank"]), of, span)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"
