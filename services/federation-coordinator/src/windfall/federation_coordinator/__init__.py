"""federation-coordinator: runs the rounds of a federation and keeps its model.

Hears ``node.profiled``, ``command.federation-coordinator.stop``. Says ``site.joined``, ``round.started``,
``contribution.accepted``, ``contribution.refused``, ``round.completed``, ``round.evaluated``, ``site.left``,
``federation.finished``, ``command.site-trainer.finish``. Serves ``Training`` and ``LinkProbe``.
"""
