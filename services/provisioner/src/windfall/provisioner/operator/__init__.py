"""Keeps what runs in a cluster as its Sites and Federations say.

Decisions are pure: ``selection`` (which sites), ``flower`` and ``coordinator`` (which objects), ``standing`` (which
conditions). Around them a level-triggered loop: whatever is seen puts the name of its owner into a queue, and
reconciling an owner brings the cluster to what is wanted now, wherever it was left.
"""
