"""Fleet now: which sites have surplus power, what holds it, what trains."""

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.source.panels import board, choice, increase, lines, number, quantile, query, rate, rows, states
from windfall.servicekit import instruments as m

SITES = '{windfall_site=~"$windfall_site"}'


def made() -> dashboard.Dashboard:
    """The dashboard."""
    window, stale = m.WINDOW_OPEN.prometheus, m.SIGNAL_STALE.prometheus
    return (
        board("fleet", "Fleet", "Sites, their windows, their nodes.", choice("windfall_site", "Site", m.WINDOW_OPEN))
        .with_panel(
            number(
                "Sites with surplus", "Sites whose window is open.", "none", f"sum(max by (windfall_site) ({window}))"
            )
        )
        .with_panel(
            number("Members", "Sites that contributed to the last round.", "none", f"sum({m.MEMBERS.prometheus})")
        )
        .with_panel(
            number(
                "Tokens/s",
                "Merged, over all federations.",
                "none",
                f"sum(rate({m.TOKENS.prometheus}[$__rate_interval]))",
            )
        )
        .with_panel(
            number(
                "Stale signals",
                "Sites that are shut because their signal is silent.",
                "none",
                f"sum(max by (windfall_site) ({stale}))",
            )
        )
        .with_panel(
            number(
                "Failed nodes",
                "Leases without a node in the range shown.",
                "none",
                f"sum(increase({m.NODES_FAILED.prometheus}[$__range])) or vector(0)",
            )
        )
        .with_panel(
            number(
                "Dead letters",
                "In the range shown.",
                "none",
                f"sum(increase({m.DEAD_LETTERS.prometheus}[$__range])) or vector(0)",
            )
        )
        .with_panel(
            states(
                "Windows",
                "A lane for each site: lit while its power is surplus.",
                f"max by (windfall_site) ({window}{SITES})",
                "{{windfall_site}}",
                (("0", "closed", "#3b4252"), ("1", "open", "#73bf69")),
            )
        )
        .with_panel(
            lines(
                "Leases by state",
                "What the sites hold.",
                "none",
                query(f"sum by (windfall_lease_state) ({m.LEASES.prometheus}{SITES})", "{{windfall_lease_state}}"),
                stacked=True,
            )
        )
        .with_panel(
            lines(
                "Start of a node",
                "From the lease to ready.",
                "s",
                query(quantile(0.5, m.NODE_START, where=SITES), "median", exemplars=True),
                query(quantile(0.95, m.NODE_START, where=SITES), "95 %"),
            )
        )
        .with_panel(
            lines(
                "Nodes given back",
                "By why; grace and died cost work.",
                "none",
                query(increase(m.NODES_RELEASED, "windfall_reason", where=SITES), "{{windfall_reason}}"),
            )
        )
        .with_panel(
            lines(
                "Windows by how they ended",
                "Per second.",
                "none",
                query(rate(m.WINDOWS, "windfall_reason", where=SITES), "{{windfall_reason}}"),
            )
        )
        .with_panel(
            lines(
                "Nodes that became ready",
                "By what they are made of.",
                "none",
                query(rate(m.NODES_READY, "windfall_backend", where=SITES), "{{windfall_backend}}"),
            )
        )
        .with_panel(
            lines(
                "Signal values refused",
                "Not believed, by reason.",
                "none",
                query(
                    rate(m.SIGNALS_REFUSED, "windfall_site", "windfall_reason", where=SITES),
                    "{{windfall_site}}: {{windfall_reason}}",
                ),
            )
        )
        .with_panel(
            rows(
                "Links",
                "Goodput to the hub and to other sites.",
                query(
                    "max by (windfall_site, windfall_target, windfall_direction) "
                    f"({m.LINK_BANDWIDTH.prometheus}{SITES})"
                ),
            )
        )
        .with_panel(
            rows(
                "Round trips",
                "To the hub and to other sites.",
                query(f"max by (windfall_site, windfall_target) ({m.LINK_RTT.prometheus}{SITES})"),
            )
        )
        .with_panel(
            rows(
                "Jitter",
                "Mean difference between a round trip and the next.",
                query(f"max by (windfall_site, windfall_target) ({m.LINK_JITTER.prometheus}{SITES})"),
            )
        )
        .with_panel(
            rows(
                "Links out of their band",
                "1 while one is longer or narrower than it usually is.",
                query(f"max by (windfall_site, windfall_target, windfall_part) ({m.LINK_DEGRADED.prometheus}{SITES})"),
            )
        )
    )
