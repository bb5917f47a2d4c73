"""Flower is imported once, here, so that what its import needs stands in one place."""

import warnings

import pytest

with pytest.MonkeyPatch.context() as environment, warnings.catch_warnings():
    environment.setenv("FLWR_TELEMETRY_ENABLED", "0")  # read once, at import
    environment.setenv("GRPC_VERBOSITY", "error")  # as Flower itself sets it, but not for the rest of the process
    # Flower holds typer below 0.21, which on import takes two names from a place that click 8.5 deprecates.
    warnings.filterwarnings(
        "ignore",
        message=r"'click\.utils\.get_(binary|text)_stream' is deprecated",
        category=DeprecationWarning,
        module=r"typer\Z",
    )
    import flwr.serverapp.strategy  # noqa: F401
