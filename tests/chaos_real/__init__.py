"""Chaos on real processes: ``make chaos``."""
