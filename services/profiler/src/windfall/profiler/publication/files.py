"""Where a profile is written: the document beside the journal, the feature file where the cluster's daemon reads it."""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

from windfall.contracts.profile import PROFILE_FILE, Profile
from windfall.profiler.publication.features import FEATURES_FILE, feature_file
from windfall.profiler.publication.labels import labels, measured_labels

log = logging.getLogger(__name__)

Publish = Callable[[Profile], None]
"""Takes a profile before it is said. What cannot be written is logged: the bus has it all the same."""


def to_files(state_dir: Path, features_dir: Path | None) -> Publish:
    """Write ``profile.json``, and the feature file when there is a place for it."""

    def publish(profile: Profile) -> None:
        _written(state_dir / PROFILE_FILE, profile.model_dump_json(indent=2) + "\n", private=True)
        if features_dir is not None:
            known = labels(profile.hardware, profile.measured.fingerprint)
            features = feature_file(known | measured_labels(profile.hardware, profile.measured))
            _written(features_dir / FEATURES_FILE, features, private=False)

    return publish


def nowhere(_: Profile) -> None:
    """For who hears the bus alone."""


def _written(path: Path, text: str, private: bool) -> None:
    try:
        write_whole(path, text, private)
    except OSError as error:
        log.warning("cannot write %s: %s", path, error.strerror)


def write_whole(path: Path, text: str, private: bool) -> None:
    """Replace a file so that whoever reads it finds the old or the new one whole, also after a power cut.

    Args:
        private: readable by this user alone.

    Raises:
        OSError
    """
    # A dot first: Node Feature Discovery does not read such files.
    handle, temporary = mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600 if private else 0o644)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
