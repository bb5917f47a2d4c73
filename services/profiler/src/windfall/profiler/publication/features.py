"""The feature file of Node Feature Discovery: its local source makes each line a label of the node.

See *Customization guide*, section *Feature files*, of its documentation: ``<namespace>/<name>=<value>``, and a comment
after which what is in the file does not count any more. Its master takes labels of another domain than
``feature.node.kubernetes.io`` unless it was told not to (``-deny-label-ns``; before 0.11 it must be told to).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

FEATURES_FILE: Final = "windfall"
"""Its name in ``/etc/kubernetes/node-feature-discovery/features.d``."""


def feature_file(labels: Mapping[str, str], expires_at: datetime | None = None) -> str:
    """The file's text.

    Args:
        expires_at: after which the node is not what it says any more; none for never.
    """
    head = ["# written by windfall's profiler; do not edit"]
    if expires_at is not None:
        head.append(f"# +expiry-time={expires_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    return "\n".join([*head, *(f"{name}={value}" for name, value in labels.items())]) + "\n"
