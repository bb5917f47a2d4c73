"""Any meter that Prometheus scrapes: the site's own, a power strip, or NVIDIA's DCGM exporter in a cluster.

The query gives cumulative energy, one series for each thing that is metered. Of DCGM that is
``DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{…}`` in mJ. Source: prometheus.io/docs/prometheus/latest/querying/api.
A sample is as old as the last scrape; over a whole window that evens out.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SecretStr

from windfall.energy.meter import J_PER_KWH, J_PER_WH, Counter, Reading
from windfall.energy.quotes import Unbelievable
from windfall.energy_watcher.answers import Body, read
from windfall.energy_watcher.credentials import optional_credential
from windfall.energy_watcher.http import Cures, Denied, HttpClient, Request, bearer
from windfall.energy_watcher.section import HttpSection, Means
from windfall.servicekit.errors import Transient

_JOULES: Final = {"mJ": 1e-3, "J": 1.0, "kJ": 1e3, "Wh": J_PER_WH, "kWh": J_PER_KWH}


class PrometheusMeterSection(HttpSection):
    """Credential, where one is needed: the bearer token ``WINDFALL_PROMETHEUS_TOKEN``, or the same with ``_FILE``."""

    query: Annotated[str, Field(min_length=1, max_length=4000)]
    """PromQL that gives cumulative energy: of the site's nodes and nothing else."""
    unit: Literal["mJ", "J", "kJ", "Wh", "kWh"]


class _Series(Body):
    metric: dict[str, str]
    value: list[Any]


class _Data(Body):
    kind: Literal["vector"] = Field(validation_alias="resultType")
    result: list[Any]


class _Answer(Body):
    status: Literal["success"]
    data: _Data


class PrometheusMeter:
    """One query of one server."""

    name = "prometheus"

    def __init__(self, told: PrometheusMeterSection, means: Means, token: SecretStr | None) -> None:
        cures = Cures(
            "Set WINDFALL_PROMETHEUS_TOKEN to a token that may query",
            "Correct the query of WINDFALL_METER_PROMETHEUS; try it in the server's own console",
        )
        self._told = told
        self._client = HttpClient("Prometheus", told, means, cures)
        self._token = None if token is None else bearer(token)
        for secret in (token, self._token):
            if secret is not None:
                self._client.hide(secret)

    @classmethod
    def of(cls, told: PrometheusMeterSection, means: Means) -> Self:
        """Raises ``Mistake`` when the credential cannot be read."""
        return cls(told, means, optional_credential("WINDFALL_PROMETHEUS_TOKEN", means.environ))

    async def read(self, now: datetime) -> Reading:
        held = {} if self._token is None else {"Authorization": self._token.get_secret_value()}
        try:
            answer = await self._client.ask(Request("/api/v1/query", (("query", self._told.query),)), held)
            result = read(_Answer, answer.body or {}).data.result
            counters = dict(self._counter(read(_Series, series)) for series in result)
        except Unbelievable as error:
            raise Transient(f"Prometheus shows no energy: {error.detail}") from error
        except Denied as error:
            # The site goes on without its meter; entries say that they are modelled, and the log says this.
            raise Transient(str(error)) from error
        if not counters:
            raise Transient(f"Prometheus has no sample of {self._told.query} within its look-back")
        return Reading(now, self.name, counters)

    async def close(self) -> None:
        await self._client.close()

    def _counter(self, series: _Series) -> tuple[str, Counter]:
        labels = ",".join(f"{name}={text}" for name, text in sorted(_identity(series.metric).items()))
        try:
            _, shown = series.value
            counted = float(shown) * _JOULES[self._told.unit]
        except (TypeError, ValueError):
            raise Unbelievable("unreadable", 'a sample that is not [time, "number"]') from None
        if not (math.isfinite(counted) and counted >= 0):
            raise Unbelievable("not-finite", f"{counted} J")
        return labels, Counter(counted)


def _identity(metric: Mapping[str, str]) -> Mapping[str, str]:
    """What says which thing is metered; the exporter's own name and pod change when it is started again."""
    return {name: text for name, text in metric.items() if name not in ("__name__", "instance", "pod", "endpoint")}
