"""Doubles that ship with the product and pass the same contract tests as the real thing.

``MemoryBus`` for NATS, ``MemoryServer``/``MemoryChannel`` for gRPC, ``VirtualLoop`` for time. With them a whole fleet
runs in one process, on virtual time, from a seed.
"""
