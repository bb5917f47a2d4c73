"""Fixtures of the whole repository come from the doubles that the product ships."""

pytest_plugins = ["windfall.servicekit.testing.fixtures"]
