"""Energy and carbon, against what training all the time would have cost."""

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.source.panels import board, choice, increase, lines, number, query, rows
from windfall.servicekit import instruments as m

SITES = '{windfall_site=~"$windfall_site"}'


def made() -> dashboard.Dashboard:
    """The dashboard."""
    energy, emissions = m.ENERGY.prometheus, m.EMISSIONS.prometheus
    always, always_kwh = m.ALWAYS_ON_EMISSIONS.prometheus, m.ALWAYS_ON_ENERGY.prometheus
    return (
        board(
            "energy", "Energy and carbon", "From the sites' signed ledgers.", choice("windfall_site", "Site", m.ENERGY)
        )
        .with_panel(number("Energy", "Drawn, by the ledgers.", "kwatth", f"sum({energy}{SITES})"))
        .with_panel(number("CO2e", "Of that energy.", "masskg", f"sum({emissions}{SITES})"))
        .with_panel(number("CO2e always on", "Of training all the time.", "masskg", f"sum({always}{SITES})"))
        .with_panel(
            number(
                "Saved",
                "Share of always-on carbon that was not emitted.",
                "percentunit",
                f"1 - sum({emissions}{SITES}) / sum({always}{SITES})",
            )
        )
        .with_panel(
            number(
                "Clean share",
                "Energy below the open threshold.",
                "percentunit",
                f"sum({m.ENERGY_CLEAN.prometheus}{SITES}) / sum({energy}{SITES})",
            )
        )
        .with_panel(
            number(
                "kWh per million tokens",
                "Over all sites.",
                "kwatth",
                f"sum({energy}) / (sum({m.TOKENS.prometheus}) / 1e6)",
            )
        )
        .with_panel(
            lines(
                "Power by state",
                "Mean of the ledgers' entries.",
                "kwatt",
                query(
                    f"sum by (windfall_state) (rate({energy}{SITES}[$__rate_interval])) * 3600", "{{windfall_state}}"
                ),
                stacked=True,
            )
        )
        .with_panel(
            lines(
                "Power by site",
                "Mean of the ledgers' entries.",
                "kwatt",
                query(f"sum by (windfall_site) (rate({energy}{SITES}[$__rate_interval])) * 3600", "{{windfall_site}}"),
                stacked=True,
            )
        )
        .with_panel(
            lines(
                "CO2e against always on",
                "Both grow from the ledgers' begin.",
                "masskg",
                query(f"sum({emissions}{SITES})", "Windfall"),
                query(f"sum({always}{SITES})", "always on"),
            )
        )
        .with_panel(
            lines(
                "Intensity at opening",
                "Of a site's power when its window opened last.",
                "none",
                query(f"max by (windfall_site) ({m.INTENSITY.prometheus}{SITES})", "{{windfall_site}}"),
            )
        )
        .with_panel(
            rows(
                "By site and state",
                "kWh in the range shown.",
                query(increase(m.ENERGY, "windfall_site", "windfall_state", "windfall_method", where=SITES)),
            )
        )
        .with_panel(
            rows(
                "Always on, by site",
                "kWh of the counterfactual.",
                query(f"sum by (windfall_site) ({always_kwh}{SITES})"),
            )
        )
    )
