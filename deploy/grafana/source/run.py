"""A run: is it learning, how fast, on whose work."""

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.source.panels import board, choice, lines, number, query, rate
from windfall.servicekit import instruments as m

OURS = '{windfall_federation=~"$windfall_federation"}'


def made() -> dashboard.Dashboard:
    """The dashboard."""
    by = "windfall_federation"
    return (
        board("run", "Run", "Loss, rounds and contributions of a federation.", choice(by, "Federation", m.ROUND))
        .with_panel(number("Round", "The last completed one.", "none", f"max by ({by}) ({m.ROUND.prometheus}{OURS})"))
        .with_panel(
            number("Loss", "Training loss of the last round.", "none", f"max by ({by}) ({m.LOSS.prometheus}{OURS})")
        )
        .with_panel(
            number(
                "Held-out loss",
                "Of the last committed model.",
                "none",
                f"max by ({by}) ({m.LOSS_HELD_OUT.prometheus}{OURS})",
            )
        )
        .with_panel(
            number(
                "Tokens", "Merged in the range shown.", "none", f"sum(increase({m.TOKENS.prometheus}{OURS}[$__range]))"
            )
        )
        .with_panel(
            number(
                "Refused",
                "Contributions in the range shown.",
                "none",
                f"sum(increase({m.CONTRIBUTIONS_REFUSED.prometheus}{OURS}[$__range])) or vector(0)",
            )
        )
        .with_panel(
            number(
                "Skipped steps",
                "Without a finite loss.",
                "none",
                f"sum(increase({m.STEPS_SKIPPED.prometheus}{OURS}[$__range])) or vector(0)",
            )
        )
        .with_panel(
            lines(
                "Loss",
                "Training and held-out, in nats.",
                "none",
                query(f"max by ({by}) ({m.LOSS.prometheus}{OURS})", "training {{windfall_federation}}"),
                query(f"max by ({by}) ({m.LOSS_HELD_OUT.prometheus}{OURS})", "held out {{windfall_federation}}"),
            )
        )
        .with_panel(
            lines(
                "Tokens per second", "Merged.", "none", query(rate(m.TOKENS, by, where=OURS), "{{windfall_federation}}")
            )
        )
        .with_panel(
            lines(
                "Members",
                "Sites that contributed to a round.",
                "none",
                query(f"max by ({by}) ({m.MEMBERS.prometheus}{OURS})", "{{windfall_federation}}"),
            )
        )
        .with_panel(
            lines(
                "Contributions",
                "Accepted, by site.",
                "none",
                query(rate(m.CONTRIBUTIONS, "windfall_site", where=OURS), "{{windfall_site}}"),
                stacked=True,
            )
        )
        .with_panel(
            lines(
                "Refused contributions",
                "By reason.",
                "none",
                query(
                    rate(m.CONTRIBUTIONS_REFUSED, "windfall_reason", "windfall_site", where=OURS),
                    "{{windfall_site}}: {{windfall_reason}}",
                ),
            )
        )
        .with_panel(
            lines(
                "Sites that left",
                "By why; silent ones were lost.",
                "none",
                query(
                    rate(m.SITES_LEFT, "windfall_reason", "windfall_site", where=OURS),
                    "{{windfall_site}}: {{windfall_reason}}",
                ),
            )
        )
        .with_panel(
            lines(
                "Steps per second",
                "Local steps whose work was merged.",
                "none",
                query(rate(m.STEPS, by, where=OURS), "{{windfall_federation}}"),
            )
        )
        .with_panel(
            lines(
                "Privacy",
                "Epsilon of what sites with noise have told; they tell no more than their own policy allows.",
                "none",
                query(f"max by (windfall_site) ({m.EPSILON.prometheus})", "{{windfall_site}}"),
            )
        )
    )
