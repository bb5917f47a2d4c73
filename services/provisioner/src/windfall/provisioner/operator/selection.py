"""Which sites a federation uses, and why not the others."""

from collections.abc import Iterable
from dataclasses import dataclass

from windfall.contracts.jurisdiction import within
from windfall.contracts.resources.federation import FederationSpec
from windfall.contracts.resources.site import DataSet, Site


@dataclass(frozen=True)
class Choice:
    """What was found of one site."""

    site: Site
    reason: str = ""
    """Why it is not used; empty when it is."""
    data: DataSet | None = None
    """What it trains on there."""

    @property
    def used(self) -> bool:
        return not self.reason


def selected(spec: FederationSpec, sites: Iterable[Site]) -> tuple[Choice, ...]:
    """Every site with what speaks against it, by name. The law is asked first: nothing else can make up for it."""
    return tuple(_choice(spec, site) for site in sorted(sites, key=lambda site: site.metadata.name))


def _choice(spec: FederationSpec, site: Site) -> Choice:
    law = site.spec.jurisdiction
    if spec.allowed_jurisdictions and not within(law, spec.allowed_jurisdictions):
        return Choice(site, f"its jurisdiction {law} is not within {', '.join(spec.allowed_jurisdictions)}")
    if not spec.site_selector.takes(site.metadata.labels):
        return Choice(site, "its labels are not what siteSelector takes")
    if site.metadata.going:
        return Choice(site, "it is being deleted")
    if site.spec.suspend:
        return Choice(site, "it is suspended")
    data = next((data for data in site.spec.data_sets if spec.data_selector.takes(data.labels)), None)
    wants_data = bool(spec.data_selector.match_labels or spec.data_selector.match_expressions)
    if data is None and wants_data:
        return Choice(site, "none of its data sets is what dataSelector takes")
    return Choice(site, data=data)
