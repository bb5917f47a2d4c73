"""A site's policy as its owner writes it: TOML or JSON, and every mistake in it in one line."""

import json
import tomllib
from pathlib import Path

from pydantic import ValidationError

from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.tls import is_loopback
from windfall.site_trainer.policy import Offer, SitePolicy
from windfall.site_trainer.settings import TrainerSettings


def read_policy(path: Path | None) -> SitePolicy:
    """What stands in a file; without one, the policy that allows everything the protocol does.

    Raises:
        Mistake: it cannot be read, or is wrong. A trainer without its policy does not start.
    """
    if path is None:
        return SitePolicy()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise Mistake(
            f"the site's policy {path} cannot be read ({reason})",
            "Set WINDFALL_SITE_POLICY to a TOML or JSON file that this user may read",
            ExitCode.RESOURCE,
        ) from error
    try:
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise Mistake(f"the site's policy {path} is no {kind} ({error})", "Mend it and start again") from error
    try:
        return SitePolicy.model_validate(found)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, mistake['loc'])) or 'policy'}: {mistake['msg'].removeprefix('Value error, ')}"
            for mistake in error.errors()
        )
        raise Mistake(f"the site's policy {path} is wrong: {wrong}", "Mend these lines and start again") from error


def offer_of(settings: TrainerSettings) -> Offer:
    """Whom the settings tell a trainer to join."""
    host = settings.coordinator.rsplit(":", 1)[0].strip("[]")
    return Offer(settings.federation, host, is_loopback(settings.coordinator), settings.tls is not None)
