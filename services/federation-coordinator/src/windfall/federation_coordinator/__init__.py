"""federation-coordinator: runs the rounds of a federation and keeps its model.

Hears ``node.profiled``, ``command.federation-coordinator.stop``, ``command.federation-coordinator.pause``,
``command.federation-coordinator.resume``, ``command.federation-coordinator.rollback``,
``command.federation-coordinator.readmit``; with a budget of carbon also ``energy.recorded``; when it plans also
``signal.forecast``, ``signal.stale``, ``signal.recovered``, ``window.expected``, ``window.opened``, ``window.closed``,
``node.ready``, ``training.started``, ``energy.recorded``. Says ``site.refused``, ``site.joined``, ``round.started``,
``contribution.accepted``, ``contribution.refused``, ``round.completed``, ``round.discarded``, ``round.evaluated``,
``checkpoint.damaged``, ``site.left``, ``federation.paused``, ``federation.resumed``, ``federation.finished``,
``command.site-trainer.finish``; where a corpus is shared also ``epoch.completed``; when it plans also ``plan.made``,
``command.energy-watcher.follow``. Serves ``Training``, ``Checkpoints`` and
``LinkProbe``.
"""
