"""Fixtures of the whole repository come from the doubles that the product ships."""

import os

# Small tensors on shared cores: threads that wait for each other would take most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["windfall.servicekit.testing.fixtures"]
