"""Fixtures of the whole repository come from the doubles that the product ships."""

import os

from hypothesis import settings

# Small tensors on shared cores: threads that wait for each other would take most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A test never judges how fast a shared machine is.
settings.register_profile("windfall", deadline=None)
settings.load_profile("windfall")

pytest_plugins = ["windfall.servicekit.testing.fixtures", "windfall.servicekit.testing.kube_fixtures"]
