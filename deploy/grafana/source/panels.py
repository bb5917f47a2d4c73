"""Panels as this house draws them, on Grafana's own builders.

A query is made from an :class:`~windfall.servicekit.instruments.Instrument`, so that no dashboard asks for a name that
the code does not emit. The data source is a variable: the files load into any Grafana.
"""

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common as drawn
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models

from windfall.servicekit.instruments import Instrument

SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${source}")
WIDTH: Final = 24
"""Columns of Grafana's grid."""


def query(expression: str, legend: str = "", *, exemplars: bool = False) -> prometheus.Dataquery:
    """One query; with exemplars its points lead to their traces."""
    return prometheus.Dataquery().expr(expression).legend_format(legend or "__auto").exemplar(exemplars)


def rate(instrument: Instrument, *by: str, where: str = "") -> str:
    """Per second, summed over everything but ``by``."""
    return f"sum by ({', '.join(by)}) (rate({instrument.prometheus}{where}[$__rate_interval]))"


def increase(instrument: Instrument, *by: str, where: str = "") -> str:
    """How much came in the range that is shown."""
    return f"sum by ({', '.join(by)}) (increase({instrument.prometheus}{where}[$__range]))"


def quantile(share: float, instrument: Instrument, *by: str, where: str = "") -> str:
    """A quantile of a histogram."""
    names = ", ".join((*by, "le"))
    return (
        f"histogram_quantile({share}, sum by ({names}) (rate({instrument.prometheus}_bucket{where}[$__rate_interval])))"
    )


def lines(
    title: str, what: str, unit: str, *queries: prometheus.Dataquery, width: int = 12, stacked: bool = False
) -> timeseries.Panel:
    """Lines over time; ``what`` is the sentence behind the panel's sign."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(what)
        .datasource(SOURCE)
        .unit(unit)
        .height(8)
        .span(width)
        .line_width(2)
        .fill_opacity(25 if stacked else 8)
        .show_points(drawn.VisibilityMode.NEVER)
        .legend(common.VizLegendOptions().show_legend(True).display_mode(drawn.LegendDisplayMode.LIST))
        .tooltip(common.VizTooltipOptions().mode(drawn.TooltipDisplayMode.MULTI))
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(drawn.StackingMode.NORMAL))
    for number, one in enumerate(queries):
        panel.with_target(one.ref_id(chr(ord("A") + number)))
    return panel


def number(title: str, what: str, unit: str, expression: str, *, width: int = 4, legend: str = "") -> stat.Panel:
    """One big number, or one for each series."""
    return (
        stat.Panel()
        .title(title)
        .description(what)
        .datasource(SOURCE)
        .unit(unit)
        .height(4)
        .span(width)
        .color_mode(drawn.BigValueColorMode.VALUE)
        .graph_mode(drawn.BigValueGraphMode.AREA)
        .with_target(query(expression, legend).ref_id("A"))
    )


def states(
    title: str, what: str, expression: str, legend: str, names: Sequence[tuple[str, str, str]]
) -> statetimeline.Panel:
    """A lane for each series, coloured by its value: ``names`` are value, word and colour."""
    options = {
        value: models.ValueMappingResult(text=word, color=colour, index=index)
        for index, (value, word, colour) in enumerate(names)
    }
    return (
        statetimeline.Panel()
        .title(title)
        .description(what)
        .datasource(SOURCE)
        .height(8)
        .span(WIDTH)
        .mappings([models.ValueMap(options=options)])
        .with_target(query(expression, legend).ref_id("A"))
    )


def rows(title: str, what: str, *queries: prometheus.Dataquery, width: int = 12) -> table.Panel:
    """A table of the newest values."""
    panel = table.Panel().title(title).description(what).datasource(SOURCE).height(8).span(width)
    for position, one in enumerate(queries):
        panel.with_target(
            one.instant().format(prometheus_models.PromQueryFormat.TABLE).ref_id(chr(ord("A") + position))
        )
    return panel


def board(uid: str, title: str, what: str, *variables: dashboard.QueryVariable) -> dashboard.Dashboard:
    """An empty dashboard with its source and variables, in UTC."""
    made = (
        dashboard.Dashboard(f"Windfall / {title}")
        .uid(f"windfall-{uid}")
        .description(what)
        .tags(["windfall"])
        .timezone("utc")
        .refresh("10s")
        .time("now-6h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Windfall")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["windfall"])
            .as_dropdown(True)
        )
        .with_variable(dashboard.DatasourceVariable("source").label("Source").type("prometheus"))
    )
    for variable in variables:
        made.with_variable(variable)
    return made


def choice(name: str, label: str, instrument: Instrument) -> dashboard.QueryVariable:
    """A variable with every value that a label of this metric has; all of them at first."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(f"label_values({instrument.prometheus}, {name})")
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    )
