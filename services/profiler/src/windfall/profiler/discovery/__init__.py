"""Finds out what a node is made of: one file for each vendor or kind of part, behind the port in ``part``."""
