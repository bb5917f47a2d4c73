"""What members do when a group forms and when a round ends. Pure: from what they tell one another, each decides alike.

When a group forms, the newest boundary that a member holds counts, and who is behind receives it from one who is not.
When a round ends, every member takes the outer step on the same contributions, in the order of the sites' names, and
holds its digest against the others' before anything is kept.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict

from windfall.contracts.message import Digest, Name
from windfall.lowcomm.layout import Split
from windfall.lowcomm.rule import Rule, Said, Unread
from windfall.site_trainer.collective.holding import Holding

MOST_WORDS: Final = 1 << 16
"""Bytes of a ``Held`` or a ``Passed``, at most."""


class Held(BaseModel):
    """What a member stands on when a group forms."""

    model_config = ConfigDict(frozen=True)

    site: Name
    round: int
    tokens: int
    digest: Digest
    terms: dict[str, str]
    """What must be the same at every member, by the name of the setting."""


class Passed(BaseModel):
    """What a member says once it has taken the outer step."""

    model_config = ConfigDict(frozen=True)

    site: Name
    digest: Digest
    steps_per_s: float


@dataclass(frozen=True)
class Start:
    """Where a group starts, and who sends what it holds to whom before."""

    round: int
    tokens: int
    digest: str
    transfers: tuple[tuple[int, int], ...]
    """Ranks of a sender and a receiver, in the order in which all of them happen."""


def agree(held: Sequence[Held]) -> Start:
    """Where these members, in the order of their ranks, go on from.

    The newest boundary counts. Before the first one nobody has anything to lose, so the model of the first site by name
    counts. Receivers are spread over those who have what they need.

    Raises:
        ValueError: two members have one name or different terms, or trained apart; one line that names them.
    """
    first = min(held, key=lambda one: one.site)
    name, times = Counter(one.site for one in held).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{times} members are called {name!r}; give each a --site of its own")
    for other in held:
        for term in {**first.terms, **other.terms}:
            ours, theirs = first.terms.get(term), other.terms.get(term)
            if ours != theirs:
                raise ValueError(f"{first.site} has {term} {ours!r}, {other.site} has {theirs!r}; start both alike")
    newest = max(held, key=lambda one: one.round).round
    ahead = sorted((one for one in held if one.round == newest), key=lambda one: one.site)
    source = ahead[0]
    apart = next((one for one in ahead if one.digest != source.digest), None)
    if apart is not None and newest > 0:
        raise ValueError(
            f"{source.site} and {apart.site} hold different models of round {newest} ({source.digest[:12]} and "
            f"{apart.digest[:12]}); they trained apart. Empty the --state-dir of the one that is to follow"
        )
    holders = [rank for rank, one in enumerate(held) if (one.round, one.digest) == (newest, source.digest)]
    behind = [rank for rank in range(len(held)) if rank not in holders]
    transfers = tuple((holders[index % len(holders)], rank) for index, rank in enumerate(behind))
    return Start(newest, source.tokens, source.digest, transfers)


def contributions(
    rule: Rule, split: Split, base_round: int, sites: Sequence[str], messages: Sequence[bytes]
) -> tuple[tuple[Said, ...], int]:
    """What members said of a round, and the tokens behind it. An empty message is from one that has nothing to say.

    Raises:
        ValueError: a message is damaged or of another round; the line names its site.
    """
    said = []
    for site, message in zip(sites, messages, strict=True):
        if not message:
            continue
        try:
            header, _ = rule.payloads(message, split)[0]
        except ValueError as error:
            raise ValueError(f"what {site} said of round {base_round + 1} cannot be read: {error}") from error
        if header.base != base_round or not header.tokens:
            raise ValueError(
                f"{site} speaks of {header.tokens} tokens from base {header.base}, others of base {base_round}"
            )
        said.append(Said(site, 0, header.tokens, Unread(rule, message, split)))
    return tuple(said), sum(int(one.tokens) for one in said)


def step(rule: Rule, split: Split, holding: Holding, said: Sequence[Said], tokens: int) -> Holding:
    """The next boundary. Where nobody said anything the model stays where it is.

    Raises:
        ValueError: contributions that no encoder writes.
    """
    outer, base = holding.outer, holding.base
    if said:
        outer, base = rule.step(outer, base, rule.merge(said, split), split)
    return Holding(holding.round + 1, holding.tokens + tokens, base, outer, holding.feedback)


def check_alike(number: int, passed: Sequence[Passed]) -> None:
    """Every member must hold the same bits after round ``number``.

    Raises:
        ValueError: naming those who differ from most.
    """
    counted = Counter(one.digest for one in sorted(passed, key=lambda one: one.site))
    common = counted.most_common(1)[0][0]
    odd = [f"{one.site} ({one.digest[:12]})" for one in passed if one.digest != common]
    if odd:
        raise ValueError(
            f"after round {number} {', '.join(odd)} differs from the other members ({common[:12]}); nothing of the "
            "round was kept"
        )


def local_steps(longest: int, own: float, speeds: Sequence[float]) -> int:
    """Local steps of a member's next round so that all arrive together: the fastest takes ``longest``, the others in
    proportion to their measured speed (any unit), at least one. Speeds of 0 are not known, and count as the fastest.
    """
    fastest = max(speeds, default=0.0)
    return longest if own <= 0 or fastest <= 0 else max(1, min(longest, round(longest * own / fastest)))
