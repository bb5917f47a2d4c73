"""The custom resources of group ``windfall.dev``: what a person writes of a site or a federation, and what is said of
it there. Data only; the CustomResourceDefinitions are made from these models.
"""

from windfall.contracts.resources.conditions import Condition
from windfall.contracts.resources.federation import Federation, FederationSpec, FederationStatus
from windfall.contracts.resources.fields import GROUP, VERSION
from windfall.contracts.resources.flower import Flower, Pool
from windfall.contracts.resources.site import Site, SiteSpec, SiteStatus

__all__ = [
    "GROUP",
    "VERSION",
    "Condition",
    "Federation",
    "FederationSpec",
    "FederationStatus",
    "Flower",
    "Pool",
    "Site",
    "SiteSpec",
    "SiteStatus",
]
