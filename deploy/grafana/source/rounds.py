"""Round anatomy: where a round's time and bytes go; every point leads to its trace."""

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.source.panels import board, choice, lines, number, quantile, query, rate
from windfall.servicekit import instruments as m

OURS = '{windfall_federation=~"$windfall_federation"}'
COMPLETED = '{windfall_federation=~"$windfall_federation",windfall_outcome="completed"}'


def made() -> dashboard.Dashboard:
    """The dashboard."""
    rounds_rate = f"sum(rate({m.ROUNDS.prometheus}[$__rate_interval]))"

    def per_round(direction: str) -> str:
        where = f'{{windfall_direction="{direction}"}}'
        return f"sum(rate({m.TRANSFERRED.prometheus}{where}[$__rate_interval])) / {rounds_rate}"

    part = f"sum by (windfall_part) (rate({m.ROUND_PART.prometheus}_sum[$__rate_interval]))"
    return (
        board(
            "rounds",
            "Round anatomy",
            "Parts of a round, with exemplars into traces.",
            choice("windfall_federation", "Federation", m.ROUND),
        )
        .with_panel(
            number(
                "Rounds per hour",
                "Completed.",
                "none",
                f"sum(rate({m.ROUNDS.prometheus}{COMPLETED}[$__rate_interval])) * 3600",
            )
        )
        .with_panel(number("Median round", "From opening to commit.", "s", quantile(0.5, m.ROUND_DURATION, where=OURS)))
        .with_panel(
            number(
                "Up per round",
                "Bytes of contributions.",
                "bytes",
                per_round("up"),
            )
        )
        .with_panel(
            number(
                "Down per round",
                "Bytes of models and outer logs.",
                "bytes",
                per_round("down"),
            )
        )
        .with_panel(
            number(
                "Discarded",
                "Rounds that the canary gate did not keep.",
                "none",
                f'sum(increase({m.ROUNDS.prometheus}{{windfall_outcome="discarded"}}[$__range])) or vector(0)',
            )
        )
        .with_panel(
            lines(
                "Round duration",
                "Each diamond is a round's trace.",
                "s",
                query(quantile(0.5, m.ROUND_DURATION, where=OURS), "median", exemplars=True),
                query(quantile(0.95, m.ROUND_DURATION, where=OURS), "95 %"),
            )
        )
        .with_panel(
            lines(
                "Where the time goes",
                "Seconds of each part per second; an upload holds its check, an aggregate its outer step.",
                "s",
                query(part, "{{windfall_part}}"),
            )
        )
        .with_panel(
            lines(
                "Each part, 95 %",
                "Each diamond is a trace.",
                "s",
                query(quantile(0.95, m.ROUND_PART, "windfall_part"), "{{windfall_part}}", exemplars=True),
            )
        )
        .with_panel(
            lines(
                "Bytes",
                "By direction and codec; what goes down in full is fp32.",
                "Bps",
                query(
                    rate(m.TRANSFERRED, "windfall_direction", "windfall_codec", where=OURS),
                    "{{windfall_direction}} {{windfall_codec}}",
                ),
            )
        )
        .with_panel(
            lines(
                "Waiting at barriers",
                "95 % of what a site waits for the next round.",
                "s",
                query(quantile(0.95, m.BARRIER_WAIT, "windfall_site"), "{{windfall_site}}"),
            )
        )
        .with_panel(
            lines(
                "gRPC calls, 95 %",
                "Served, by method.",
                "s",
                query(quantile(0.95, m.CALLS, "rpc_method"), "{{rpc_method}}", exemplars=True),
            )
        )
    )
