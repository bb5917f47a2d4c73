"""A fleet whose sites each judge for themselves, by their thresholds.

Nothing couples the sites but the end of the work, so each lives through its trace alone, and looks only where something
can change: a year of a site is a few thousand looks.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from windfall.energy.column import moment
from windfall.energy.gate import Gate, look
from windfall.energy.lookahead import VERDICTS, codes_of, coming, foreseen, where_it_matters
from windfall.energy.policy import Policy
from windfall.energy.simulate import HORIZON, Life, Lived, SimulatedSite


def by_rule(
    sites: Iterable[SimulatedSite],
    start: datetime,
    end: datetime,
    policy: Policy,
    horizon: timedelta | None = HORIZON,
    everywhere: bool = False,
) -> list[Life]:
    """Every site opens and shuts its windows by the policy's thresholds.

    Args:
        sites: read one after the other, so that a generator keeps one column in memory.
        start: trace time.
        end: trace time.
        policy: of every site; its start-up and drain are those of the nodes.
        horizon: of the forecast; none watches without one.
        everywhere: look at every reading, also where nothing can change: slower, and the same.
    """
    return [_ruled(site, start, end, policy, horizon, everywhere) for site in sites]


def _ruled(
    site: SimulatedSite, start: datetime, end: datetime, policy: Policy, horizon: timedelta | None, everywhere: bool
) -> Life:
    column = site.column.cut(start.timestamp(), end.timestamp())
    codes = codes_of(column.values, policy)
    if site.forecast is not None and horizon is not None:
        # It may change its mind at every reading.
        looks: Sequence[int] = list(range(len(codes)))
        ahead = foreseen(site.forecast, column, policy, horizon.total_seconds())
    else:
        looks = list(range(len(codes))) if everywhere else where_it_matters(column, codes, policy, horizon is None)
        ahead = blind if horizon is None else coming(column, codes, horizon.total_seconds())
    gate, life = Gate(), Lived(policy, start)
    instants: list[float] = column.times[looks].tolist()
    verdicts = [VERDICTS[code] for code in codes[looks].tolist()]
    for index, now, verdict in zip(looks, instants, verdicts, strict=True):
        at = moment(now)
        gate = life.wait(gate, at)
        gate, steps = look(gate, at, verdict, ahead(index), policy)
        life.move(steps)
    life.wait(gate, end)
    return life.told(site.name, end)


def blind(_: int) -> None:
    """There is no forecast."""
