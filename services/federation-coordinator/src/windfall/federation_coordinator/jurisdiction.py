"""Under whose law the members of a federation must lie. Pure."""

from dataclasses import dataclass
from datetime import datetime

from windfall.contracts.events import SiteRefused
from windfall.contracts.jurisdiction import is_jurisdiction, within
from windfall.contracts.message import derived_id

_SHOWN = 40
"""Characters of a stranger's word that are said back."""


@dataclass(frozen=True)
class Law:
    """What an operator declared: where the coordinator lies, and where its sites must lie."""

    own: str = ""
    """Empty: it is not said."""
    allowed: tuple[str, ...] = ()
    """Empty: any, and none at all."""


def refusal(law: Law, label: str) -> str:
    """Why a site of this label may not join; empty when it may."""
    if label and not is_jurisdiction(label):
        return f"{label[:_SHOWN]!r} is no jurisdiction: write it like CA or CA-QC"
    if not law.allowed or within(label, law.allowed):
        return ""
    where = label or "a site that does not say where it lies"
    return f"{where} is not within {', '.join(law.allowed)}"


def refused(federation: str, site: str, label: str, detail: str, now: datetime) -> SiteRefused:
    """What is said of it; asking again under the same label is no news."""
    return SiteRefused(
        id=derived_id(f"{federation}/{label}", SiteRefused.topic, site),
        at=now,
        site=site,
        federation=federation,
        reason="jurisdiction",
        detail=detail,
    )
