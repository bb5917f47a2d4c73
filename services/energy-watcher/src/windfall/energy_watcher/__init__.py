"""Watches one site's energy signals, opens and closes its windows, and keeps the ledger of what was drawn in them.

Hears: ``signal.observed``, ``energy-watcher.follow``, and asks its providers. For the ledger: ``window.expected``,
``window.withdrawn``, ``window.opened``, ``window.closed``, ``node.ready``, ``node.failed``, ``node.released``,
``training.started``, ``site.drained``.
Says: ``signal.refused``, ``signal.stale``, ``signal.recovered``, ``signal.forecast``, ``window.expected``,
``window.withdrawn``, ``window.opened``, ``window.closing``, ``window.closed``, ``window.judged``, ``energy.recorded``.
Serves: nothing.
"""
