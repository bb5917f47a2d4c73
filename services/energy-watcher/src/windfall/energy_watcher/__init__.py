"""Watches one site's energy signal and opens and closes its windows.

Hears: nothing on the bus; a source of readings (a trace, a constant).
Says: ``signal.stale``, ``signal.recovered``, ``window.opened``, ``window.closing``, ``window.closed``.
Serves: nothing.
"""
