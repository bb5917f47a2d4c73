"""Bus health: lag, redeliveries, dead letters, room, certificates."""

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.source.panels import board, lines, number, quantile, query, rate
from windfall.servicekit import instruments as m


def made() -> dashboard.Dashboard:
    """The dashboard."""
    return (
        board("bus", "Bus", "What is said, heard, late, lost or laid aside.")
        .with_panel(number("Unsaid", "Sentences that wait in journals.", "none", f"sum({m.UNSAID.prometheus})"))
        .with_panel(number("Lag", "Messages that wait for a service.", "none", f"sum({m.LAG.prometheus})"))
        .with_panel(
            number(
                "Dead letters",
                "In the range shown.",
                "none",
                f"sum(increase({m.DEAD_LETTERS.prometheus}[$__range])) or vector(0)",
            )
        )
        .with_panel(number("Fullest stream", "Share of its room.", "percentunit", f"max({m.STORE_USE.prometheus})"))
        .with_panel(
            number("Next certificate", "Until it runs out.", "s", f"min({m.CERTIFICATE.prometheus}) or vector(0)")
        )
        .with_panel(
            number(
                "Dropped spans",
                "That neither collector nor file took.",
                "none",
                f"sum(increase({m.SPANS_DROPPED.prometheus}[$__range])) or vector(0)",
            )
        )
        .with_panel(
            lines(
                "Said",
                "Sentences per second, by topic.",
                "none",
                query(rate(m.SAID, "windfall_topic"), "{{windfall_topic}}"),
                stacked=True,
            )
        )
        .with_panel(
            lines(
                "Handling, 95 %",
                "By service.",
                "s",
                query(quantile(0.95, m.PROCESSED, "job"), "{{job}}", exemplars=True),
            )
        )
        .with_panel(
            lines(
                "Acknowledgement, 95 %",
                "From saying to the stream's word.",
                "s",
                query(quantile(0.95, m.PUBLISHED, "job"), "{{job}}", exemplars=True),
            )
        )
        .with_panel(
            lines(
                "Lag",
                "By service and stream.",
                "none",
                query(f"sum by (job, windfall_stream) ({m.LAG.prometheus})", "{{job}} {{windfall_stream}}"),
            )
        )
        .with_panel(
            lines(
                "Redelivered",
                "Per second.",
                "none",
                query(rate(m.REDELIVERED, "job", "windfall_stream"), "{{job}} {{windfall_stream}}"),
            )
        )
        .with_panel(
            lines(
                "Lost and declared again",
                "Streams and consumers.",
                "none",
                query(rate(m.CONSUMERS_LOST, "job"), "{{job}}"),
            )
        )
        .with_panel(
            lines(
                "Room taken",
                "Share of each stream's limit.",
                "percentunit",
                query(f"max by (windfall_stream) ({m.STORE_USE.prometheus})", "{{windfall_stream}}"),
            )
        )
    )
