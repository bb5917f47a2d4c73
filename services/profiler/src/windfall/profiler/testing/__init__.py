"""Doubles of vendors' software that replay recordings of machines."""
