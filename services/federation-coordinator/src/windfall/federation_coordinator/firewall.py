"""What the coordinator remembers of contributions and sites so that one liar among many is seen, and shut out.

Every function takes the state and gives the state after it; nothing here knows a clock, a disk or a wire. It judges

- **norms**: a contribution that is many times longer than the running median of those accepted is refused. Only too
  long is suspicious: partial work is shorter, and so is what a trained model still learns. Work of more steps than the
  median's may be longer in proportion, up to ten times, because a site says itself how many steps it took.
- **replays**: what another site said before, or the site itself from another base, is refused, whatever its header
  says now. A site sees what the others said in the outer log and might say it again.
- **sites**: who keeps bringing what no honest site brings is shut out, for some rounds or until it is readmitted.

A model that begins to learn faster must not lock everybody out: when more than half of the sites that are heard of are
found too long, it is the median that is old, and it is forgotten.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from pydantic import Field

from windfall.contracts.message import Digest, Name
from windfall.federation_coordinator.checks import Reason
from windfall.federation_coordinator.federation import Frozen

BLAMED: Final[tuple[Reason, ...]] = ("layout", "size", "digest", "not-finite", "tokens", "norm", "replay")
"""Refusals that honest sites do not meet. The others are races: a round that has ended, a membership that was replaced,
a lease that is fenced, a rule that an operator changed."""

_NORMS: Final = 64
_REPLAYS: Final = 256
_MOST_GROWTH: Final = 10.0


@dataclass(frozen=True)
class Limits:
    """How suspicious a coordinator is."""

    norm_factor: float | None = 10.0
    """A contribution may be so many times as long as the median one; none judges no norms."""
    norm_history: int = 12
    """Contributions that must have been accepted before norms are judged."""
    refusals: int | None = 5
    """After so many, a site is shut out; none shuts nobody out."""
    within_rounds: int = 20
    shut_out_rounds: int | None = 100
    """For so long; none leaves it to an operator."""
    tokens_factor: float | None = 4.0
    """So many times the tokens to which its speed leads may a site have trained; none believes every site."""
    owners: Mapping[str, str] = field(default_factory=dict)
    """Of sites; who is not here is its own."""
    owner_share: float = 1.0
    """Of a merge, for all sites of one owner together."""


class Length(Frozen):
    """Of an accepted contribution."""

    site: Name
    norm: float
    steps: int
    tokens: int = 0
    """As its site told them; 0 in a journal of before they were kept."""
    fragment: int = 0
    """Of which it speaks: those of one model may be of very different length."""


class Refused(Frozen):
    """What a site brought and honest sites do not bring."""

    round: int
    reason: str


class Firewall(Frozen):
    """Journaled with the federation."""

    lengths: tuple[Length, ...] = ()
    """The last ones accepted of each fragment, oldest first."""
    doubted: dict[str, float] = Field(default_factory=dict)
    """Sites whose last contribution was too long, and how long it was."""
    said: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of what the last accepted contributions say, oldest first, and whose they are."""
    said_from: dict[str, int] = Field(default_factory=dict)
    """The same, and the round of the base that each was trained from."""
    refusals: dict[str, tuple[Refused, ...]] = Field(default_factory=dict)
    """Of each site, the last ones."""
    shut_out: dict[str, int | None] = Field(default_factory=dict)
    """Sites that may not join, and the round from which they may; none waits for an operator."""


def too_long(state: Firewall, norm: float, steps: int, limits: Limits, fragment: int = 0) -> str:
    """Why a contribution of this Euclidean norm, after so many local steps, does not pass; empty when it does."""
    lengths = [one for one in state.lengths if one.fragment == fragment]
    if limits.norm_factor is None or len(lengths) < limits.norm_history:
        return ""
    usual = median(one.norm for one in lengths)
    growth = steps / max(1.0, median(one.steps for one in lengths))
    most = limits.norm_factor * usual * min(max(1.0, growth), _MOST_GROWTH)
    if norm <= most:
        return ""
    return f"its norm is {norm:.4g}; the median of the last {len(lengths)} is {usual:.4g}, at most {most:.4g} passes"


def replayed(state: Firewall, site: str, content: str, norm: float, base_round: int = 0) -> str:
    """Why a contribution does not pass that says what was said before; empty when nobody did. One that says nothing
    says the same as any other that says nothing, and what a site learns again from the same base may come to the same.
    """
    by = state.said.get(content)
    if by is None or not norm:
        return ""
    if by != site:
        return f"these values were accepted before, from {by}"
    told = state.said_from.get(content, base_round)
    return "" if told == base_round else f"these values were accepted before, in round {told}"


def usual_tokens(state: Firewall) -> dict[str, float]:
    """Of each site's last contributions, the median."""
    told: dict[str, list[int]] = {}
    for one in state.lengths:
        if one.tokens:
            told.setdefault(one.site, []).append(one.tokens)
    return {site: median(tokens) for site, tokens in told.items()}


def accepted(
    state: Firewall,
    site: str,
    norm: float,
    steps: int,
    content: Digest,
    fragment: int = 0,
    tokens: int = 0,
    base_round: int = 0,
) -> Firewall:
    """Remember what counts."""
    said = dict(list({**state.said, content: site}.items())[-_REPLAYS:])
    said_from = {**state.said_from, content: base_round}
    same = [one for one in state.lengths if one.fragment == fragment]
    kept = tuple(one for one in state.lengths if len(same) < _NORMS or one is not same[0])
    return state.model_copy(
        update={
            "lengths": (*kept, Length(site=site, norm=norm, steps=steps, tokens=tokens, fragment=fragment)),
            "doubted": {other: size for other, size in state.doubted.items() if other != site},
            "said": said,
            "said_from": {one: number for one, number in said_from.items() if one in said},
        }
    )


def doubted(state: Firewall, site: str, norm: float) -> Firewall:
    """Remember who was found too long, and forget the median when most of those who are heard of are."""
    suspects = {**state.doubted, site: norm}
    heard_of = {one.site for one in state.lengths} | set(suspects)
    if 2 * len(suspects) <= len(heard_of):
        return state.model_copy(update={"doubted": suspects})
    innocent = {
        who: tuple(one for one in past if one.reason != "norm" or who not in suspects)
        for who, past in state.refusals.items()
    }
    return state.model_copy(update={"lengths": (), "doubted": {}, "refusals": innocent})


def refused(state: Firewall, site: str, reason: Reason, round_number: int, limits: Limits) -> Firewall:
    """Count a refusal against its site, if honest sites do not meet it; shut the site out when there are too many."""
    if reason not in BLAMED or limits.refusals is None:
        return state
    past = (*state.refusals.get(site, ()), Refused(round=round_number, reason=reason))
    past = tuple(one for one in past if one.round > round_number - limits.within_rounds)[-limits.refusals :]
    state = state.model_copy(update={"refusals": {**state.refusals, site: past}})
    if len(past) < limits.refusals:
        return state
    until = None if limits.shut_out_rounds is None else round_number + limits.shut_out_rounds
    return state.model_copy(update={"shut_out": {**state.shut_out, site: until}})


def barred(state: Firewall, site: str, round_number: int) -> str:
    """Why a site may not take part in this round; empty when it may."""
    if site not in state.shut_out:
        return ""
    until = state.shut_out[site]
    if until is not None and round_number >= until:
        return ""
    reasons = ", ".join(sorted({one.reason for one in state.refusals.get(site, ())}))
    when = "an operator readmits it" if until is None else f"round {until} or an operator readmits it"
    return f"{site} is shut out until {when}: its contributions were refused for {reasons}"


def readmitted(state: Firewall, site: str) -> Firewall:
    """Forget what a site did: it may join again."""
    return state.model_copy(
        update={
            "refusals": {other: past for other, past in state.refusals.items() if other != site},
            "shut_out": {other: until for other, until in state.shut_out.items() if other != site},
            "doubted": {other: size for other, size in state.doubted.items() if other != site},
        }
    )
