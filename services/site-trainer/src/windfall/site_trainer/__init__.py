"""site-trainer: trains on a site's own data and sends only what it learnt.

Hears ``window.opened``, ``window.withdrawn``, ``window.closing``, ``window.closed``, ``command.site-trainer.finish``,
``command.site-trainer.stop``.
Says ``training.started``, ``site.withheld``, ``site.drained``. Calls ``Training`` of the federation-coordinator.
"""
