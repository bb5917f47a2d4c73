"""A whole fleet on virtual time in which anything breaks at any instant, from a seed: schedules by the thousand.

A schedule is a list of faults. The same one gives the same run to the bit, so that a seed that fails is a test, and one
that was shrunk to what it takes is a short one.
"""
