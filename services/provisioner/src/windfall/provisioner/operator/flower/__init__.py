"""A federation with ``engine: flower``: a real Flower SuperLink and pools of SuperNodes.

It takes every field that exalsius' flower-operator takes, and does what that leaves out. What that operator does and
where it breaks was read in its sources (Apache-2.0, exalsius/flower-operator at bc0c510); no code is from there.
"""
