"""Doubles of the outside, for tests and rehearsals."""
