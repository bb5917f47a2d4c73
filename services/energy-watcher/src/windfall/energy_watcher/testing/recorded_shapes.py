"""The providers' answers in the shapes that were recorded from them, over made-up values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

Values = Callable[[datetime], float]
Answered = tuple[int, dict[str, Any]]

REGIONS: Final = ("CAISO_NORTH", "SPP_TX")
ZONES: Final = ("DE", "FR")
MICROGRID: Final = "site-a"
LB_PER_G: Final = 1000.0 / 453.59237
"""lb/MWh for one g/kWh."""


@dataclass(frozen=True)
class Asked:
    """A request as the server heard it; header names in lower case."""

    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]


def answer_of(asked: Asked, now: datetime, values: Values) -> Answered:
    """Status and body, for a credential that is good."""
    first = asked.path.split("/")[1]
    if asked.path in ("/v3/forecast", "/v3/historical", "/v3/signal-index"):
        return _watttime(asked, now, values)
    if first in ("v3", "v4"):
        return _electricity_maps(asked, now, values)
    if first in ("intensity", "regional"):
        return _uk(asked, now, values)
    if first == "microgrids":
        return _vessim(asked, now, values)
    if asked.path.startswith("/api/v1/query"):
        return _prometheus(asked, now, values)
    return 404, {"error": "not found"}


def floor(at: datetime, step: timedelta) -> datetime:
    """The last multiple of a step since 1970 that is not after an instant."""
    return at - (at - datetime(1970, 1, 1, tzinfo=UTC)) % step


def _steps(since: datetime, until: datetime, step: timedelta) -> list[datetime]:
    """The multiples of a step from one instant to another, both included."""
    at, found = floor(since, step), list[datetime]()
    while at <= until:
        if at >= since:
            found.append(at)
        at += step
    return found


def _z(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _watttime(asked: Asked, now: datetime, values: Values) -> Answered:
    region, step = asked.params.get("region", ""), timedelta(minutes=5)
    if region not in REGIONS:
        said = "No coverage available for this region and signal_type"
        return 404, {"error": said, "region": region, "signal_type": asked.params.get("signal_type")}
    since = floor(now, step)
    meta = {
        "data_point_period_seconds": 300,
        "region": region,
        "warnings": [],
        "signal_type": asked.params["signal_type"],
        "model": {"date": "2023-03-01"},
        "units": "lbs_co2_per_mwh",
    }
    if asked.path == "/v3/signal-index":
        rank = round(values(since) / 6.0, 1)
        return 200, {
            "data": [{"point_time": since.isoformat(), "value": rank}],
            "meta": {**meta, "units": "percentile"},
        }
    if asked.path == "/v3/historical":
        start, end = (datetime.fromisoformat(asked.params[name]) for name in ("start", "end"))
        if end - start > timedelta(days=32):
            return 400, {"error": "Invalid query parameters", "message": "More than 32 days"}
        times = _steps(start, min(end, now), step)
    else:
        hours = int(asked.params.get("horizon_hours", "24"))
        times = [since + step * index for index in range(max(1, hours * 12))]
        meta |= {"generated_at_period_seconds": 300, "generated_at": since.isoformat()}
    return 200, {"data": [{"point_time": at.isoformat(), "value": values(at) * LB_PER_G} for at in times], "meta": meta}


def _electricity_maps(asked: Asked, now: datetime, values: Values) -> Answered:
    version, signal, what = asked.path.split("/")[1:4]
    zone, hour = asked.params.get("zone", ""), timedelta(hours=1)
    if zone not in ZONES:
        return 404, {"status": "error", "message": f"Zone '{zone}' does not exist"}
    since = floor(now, hour)
    if signal == "price-day-ahead":

        def row(at: datetime) -> dict[str, Any]:
            told = {"value": round(values(at) - 100.0, 2), "unit": "EUR/MWh", "source": "a made-up exchange"}
            return {"zone": zone, "datetime": _z(at), "createdAt": _z(at), "updatedAt": _z(at), **told}
    else:

        def row(at: datetime) -> dict[str, Any]:
            told = {"emissionFactorType": "lifecycle", "isEstimated": at == since, "estimationMethod": None}
            return {"zone": zone, "carbonIntensity": values(at), "datetime": _z(at), "updatedAt": _z(at), **told}

    if what == "latest":
        return 200, {**row(since), "temporalGranularity": "hourly"}
    if what == "history":
        name = "data" if signal == "price-day-ahead" else "history"
        rows = [row(since - hour * back) for back in range(23, -1, -1)]
        return 200, {"zone": zone, name: rows, "temporalGranularity": "hourly"}
    if what == "combined" and version == "v4" and signal == "price-day-ahead":
        rows = [row(since + hour * ahead) for ahead in range(25)]
        return 200, {"zone": zone, "data": rows, "temporalGranularity": "hourly"}
    if what == "forecast" and signal == "carbon-intensity":
        if (hours := asked.params.get("horizonHours", "24")) not in ("6", "24", "48", "72"):
            return 400, {"status": "error", "message": "Invalid horizonHours"}
        times = [since + hour * ahead for ahead in range(int(hours) + 1)]
        rows = [{"carbonIntensity": values(at), "datetime": _z(at)} for at in times]
        return 200, {"zone": zone, "updatedAt": _z(since), "forecast": rows, "temporalGranularity": "hourly"}
    return 404, {"status": "error", "message": "Unknown endpoint"}


def _uk(asked: Asked, now: datetime, values: Values) -> Answered:
    step, parts = timedelta(minutes=30), asked.path.strip("/").split("/")
    regional = parts[0] == "regional"

    def half_hour(at: datetime) -> dict[str, Any]:
        told: dict[str, Any] = {"forecast": round(values(at)), "index": "moderate"}
        if not regional:
            told["actual"] = round(values(at)) + 3 if at + step <= now else None
        since, until = (instant.strftime("%Y-%m-%dT%H:%MZ") for instant in (at, at + step))
        return {"from": since, "to": until, "intensity": told}

    place = {"regionid": 1, "dnoregion": "a made-up network", "shortname": "Somewhere"}
    if parts in (["intensity"], parts[:1]) or parts[1] in ("regionid", "postcode"):
        rows = [half_hour(floor(now, step))]
        return 200, {"data": [{**place, "data": rows}] if regional else rows}
    since, reach = parts[2 if regional else 1], parts[3 if regional else 2]
    start = datetime.strptime(since, "%Y-%m-%dT%H:%MZ").replace(tzinfo=UTC)
    ahead = {"fw24h": 24, "fw48h": 48}.get(reach)
    if ahead is None:
        end = datetime.strptime(reach, "%Y-%m-%dT%H:%MZ").replace(tzinfo=UTC)
    else:
        end = start + timedelta(hours=ahead)
    if end - start > timedelta(days=14):
        return 400, {"error": {"code": "400 Bad Request", "message": "More than 14 days"}}
    rows = [half_hour(at) for at in _steps(floor(start, step), end, step)]
    return 200, {"data": {**place, "data": rows} if regional else rows}


def _vessim(asked: Asked, now: datetime, values: Values) -> Answered:
    parts, step = asked.path.strip("/").split("/"), timedelta(seconds=10)
    if len(parts) > 1 and parts[1] != MICROGRID:
        return 404, {"detail": "Microgrid not found"}

    def state(at: datetime) -> dict[str, Any]:
        return {
            "microgrid": MICROGRID,
            "time": at.isoformat(),
            "p_delta": values(at) - 200.0,
            "p_grid": values(at) - 200.0,
            "actor_states": {"gpu": {"power": -200.0}, "pv": {"power": values(at)}},
            "policy_state": {"mode": "grid-connected", "charge_power": 0.0},
            "dispatch_states": None,
            "grid_signals": {"mci": values(at)},
        }

    last = floor(now, step)
    if len(parts) == 2:
        return 200, state(last)
    limit = int(asked.params.get("limit", "100"))
    return 200, {"data": [state(last - step * back) for back in range(limit - 1, -1, -1)]}


def _prometheus(asked: Asked, now: datetime, values: Values) -> Answered:
    if "(" in asked.params["query"] and ")" not in asked.params["query"]:
        said = {"errorType": "bad_data", "error": "parse error: unclosed left parenthesis"}
        return 400, {"status": "error", **said}
    metric = {"__name__": "site_export_watts", "site": "site-a"}
    if asked.path == "/api/v1/query":
        at = min(datetime.fromisoformat(asked.params["time"]), now)
        value = at.timestamp() - 20.0 if asked.params["query"].startswith("timestamp(") else values(at)
        result: dict[str, Any] = {"metric": metric, "value": [at.timestamp(), repr(value)]}
        return 200, {"status": "success", "data": {"resultType": "vector", "result": [result]}}
    start, end = (datetime.fromisoformat(asked.params[name]) for name in ("start", "end"))
    step = timedelta(seconds=float(asked.params["step"]))
    if (end - start) / step > 11_000:
        said = {"errorType": "bad_data", "error": "exceeded maximum resolution of 11,000 points per timeseries"}
        return 400, {"status": "error", **said}
    times = [start + step * index for index in range(int((end - start) / step) + 1)]
    result = {"metric": metric, "values": [[at.timestamp(), repr(values(at))] for at in times if at <= now]}
    return 200, {"status": "success", "data": {"resultType": "matrix", "result": [result]}}
