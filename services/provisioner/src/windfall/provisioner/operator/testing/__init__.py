"""Doubles of what the operator works with."""
