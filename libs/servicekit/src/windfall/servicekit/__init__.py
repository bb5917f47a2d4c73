"""What every service stands on: settings, bus, rpc, journal and outbox, clock, telemetry, errors, health, and doubles.

A service's ``__main__`` puts these together; its decisions know none of them.
"""
