{{/* Generated from the contracts: python -m windfall.servicekit.nats_rules chart */}}
{{- define "windfall.nats-permissions" -}}
{
 "hub": {
  "federation-coordinator": {
   "publish": {
    "allow": [
     "windfall.v1.plan.made.*",
     "windfall.v1.site.refused.*",
     "windfall.v1.site.joined.*",
     "windfall.v1.advice.given.*",
     "windfall.v1.round.started.*",
     "windfall.v1.contribution.accepted.*",
     "windfall.v1.contribution.refused.*",
     "windfall.v1.round.completed.*",
     "windfall.v1.epoch.completed.*",
     "windfall.v1.round.discarded.*",
     "windfall.v1.round.evaluated.*",
     "windfall.v1.checkpoint.damaged.*",
     "windfall.v1.site.left.*",
     "windfall.v1.federation.paused.*",
     "windfall.v1.federation.resumed.*",
     "windfall.v1.federation.finished.*",
     "windfall.v1.command.energy-watcher.follow.*",
     "windfall.v1.command.site-trainer.finish.*",
     "windfall.dead.federation-coordinator.>",
     "$JS.API.INFO",
     "$JS.*.API.INFO",
     "$JS.API.STREAM.LIST",
     "$JS.API.STREAM.INFO.EVENTS",
     "$JS.API.STREAM.CREATE.EVENTS",
     "$JS.API.STREAM.UPDATE.EVENTS",
     "$JS.API.STREAM.INFO.COMMANDS",
     "$JS.API.STREAM.CREATE.COMMANDS",
     "$JS.API.STREAM.UPDATE.COMMANDS",
     "$JS.API.STREAM.INFO.DEAD",
     "$JS.API.STREAM.CREATE.DEAD",
     "$JS.API.STREAM.UPDATE.DEAD",
     "$JS.API.STREAM.INFO.ORDERS",
     "$JS.API.STREAM.CREATE.ORDERS",
     "$JS.API.STREAM.UPDATE.ORDERS",
     "$JS.API.CONSUMER.DURABLE.CREATE.COMMANDS.federation-coordinator",
     "$JS.API.CONSUMER.CREATE.COMMANDS.federation-coordinator",
     "$JS.API.CONSUMER.INFO.COMMANDS.federation-coordinator",
     "$JS.API.CONSUMER.MSG.NEXT.COMMANDS.federation-coordinator",
     "$JS.ACK.COMMANDS.federation-coordinator.>",
     "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.federation-coordinator",
     "$JS.API.CONSUMER.CREATE.EVENTS.federation-coordinator",
     "$JS.API.CONSUMER.INFO.EVENTS.federation-coordinator",
     "$JS.API.CONSUMER.MSG.NEXT.EVENTS.federation-coordinator",
     "$JS.ACK.EVENTS.federation-coordinator.>",
     "$KV.WINDFALL_LEASES.>",
     "$JS.API.STREAM.INFO.KV_WINDFALL_LEASES",
     "$JS.API.STREAM.CREATE.KV_WINDFALL_LEASES",
     "$JS.API.STREAM.MSG.GET.KV_WINDFALL_LEASES",
     "$JS.API.DIRECT.GET.KV_WINDFALL_LEASES.>",
     "windfall.logs.told.federation-coordinator.*"
    ]
   },
   "subscribe": {
    "allow": [
     "_INBOX.hub.federation-coordinator.>",
     "windfall.logs.asked.federation-coordinator"
    ]
   }
  },
  "operator": {
   "publish": {
    "allow": [
     "windfall.v1.command.provisioner.release.*",
     "windfall.dead.operator.>",
     "$JS.API.INFO",
     "$JS.*.API.INFO",
     "$JS.API.STREAM.LIST",
     "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.*",
     "$JS.API.CONSUMER.CREATE.EVENTS.*",
     "$JS.API.CONSUMER.INFO.EVENTS.*",
     "$JS.API.CONSUMER.MSG.NEXT.EVENTS.*",
     "$JS.ACK.EVENTS.*.>"
    ],
    "deny": [
     "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.federation-coordinator",
     "$JS.API.CONSUMER.CREATE.EVENTS.federation-coordinator",
     "$JS.API.CONSUMER.INFO.EVENTS.federation-coordinator",
     "$JS.API.CONSUMER.MSG.NEXT.EVENTS.federation-coordinator",
     "$JS.ACK.EVENTS.federation-coordinator.>"
    ]
   },
   "subscribe": {
    "allow": [
     "_INBOX.hub.operator.>"
    ]
   }
  }
 },
 "site": {
  "energy-watcher": {
   "publish": {
    "allow": [
     "windfall.v1.signal.refused.<site>",
     "windfall.v1.signal.stale.<site>",
     "windfall.v1.signal.recovered.<site>",
     "windfall.v1.signal.forecast.<site>",
     "windfall.v1.window.expected.<site>",
     "windfall.v1.window.withdrawn.<site>",
     "windfall.v1.window.judged.<site>",
     "windfall.v1.window.opened.<site>",
     "windfall.v1.window.closing.<site>",
     "windfall.v1.window.closed.<site>",
     "windfall.v1.energy.recorded.<site>",
     "windfall.dead.energy-watcher.>",
     "$JS.API.INFO",
     "$JS.hub.API.INFO",
     "$JS.API.STREAM.LIST",
     "$JS.API.STREAM.INFO.EVENTS",
     "$JS.API.STREAM.CREATE.EVENTS",
     "$JS.API.STREAM.UPDATE.EVENTS",
     "$JS.API.STREAM.INFO.COMMANDS",
     "$JS.API.STREAM.CREATE.COMMANDS",
     "$JS.API.STREAM.UPDATE.COMMANDS",
     "$JS.API.STREAM.INFO.DEAD",
     "$JS.API.STREAM.CREATE.DEAD",
     "$JS.API.STREAM.UPDATE.DEAD",
     "$JS.API.CONSUMER.DURABLE.CREATE.COMMANDS.energy-watcher",
     "$JS.API.CONSUMER.CREATE.COMMANDS.energy-watcher",
     "$JS.API.CONSUMER.INFO.COMMANDS.energy-watcher",
     "$JS.API.CONSUMER.MSG.NEXT.COMMANDS.energy-watcher",
     "$JS.ACK.COMMANDS.energy-watcher.>",
     "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.energy-watcher",
     "$JS.API.CONSUMER.CREATE.EVENTS.energy-watcher",
     "$JS.API.CONSUMER.INFO.EVENTS.energy-watcher",
     "$JS.API.CONSUMER.MSG.NEXT.EVENTS.energy-watcher",
     "$JS.ACK.EVENTS.energy-watcher.>",
     "windfall.logs.told.energy-watcher.*"
    ]
   },
   "subscribe": {
    "allow": [
     "_INBOX.<site>.energy-watcher.>",
     "windfall.logs.asked.energy-watcher"
    ]
   }
  },
  "provisioner": {
   "publish": {
    "allow": [
     "windfall.v1.node.hindered.<site>",
     "windfall.v1.node.ready.<site>",
     "windfall.v1.node.failed.<site>",
     "windfall.v1.node.released.<site>",
     "windfall.dead.provisioner.>",
     "$JS.API.INFO",
     "$JS.hub.API.INFO",
     "$JS.API.STREAM.LIST",
     "$JS.API.STREAM.INFO.EVENTS",
     "$JS.API.STREAM.CREATE.EVENTS",
     "$JS.API.STREAM.UPDATE.EVENTS",
     "$JS.API.STREAM.INFO.COMMANDS",
     "$JS.API.STREAM.CREATE.COMMANDS",
     "$JS.API.STREAM.UPDATE.COMMANDS",
     "$JS.API.STREAM.INFO.DEAD",
     "$JS.API.STREAM.CREATE.DEAD",
     "$JS.API.STREAM.UPDATE.DEAD",
     "$JS.API.CONSUMER.DURABLE.CREATE.COMMANDS.provisioner",
     "$JS.API.CONSUMER.CREATE.COMMANDS.provisioner",
     "$JS.API.CONSUMER.INFO.COMMANDS.provisioner",
     "$JS.API.CONSUMER.MSG.NEXT.COMMANDS.provisioner",
     "$JS.ACK.COMMANDS.provisioner.>",
     "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.provisioner",
     "$JS.API.CONSUMER.CREATE.EVENTS.provisioner",
     "$JS.API.CONSUMER.INFO.EVENTS.provisioner",
     "$JS.API.CONSUMER.MSG.NEXT.EVENTS.provisioner",
     "$JS.ACK.EVENTS.provisioner.>",
     "windfall.logs.told.provisioner.*"
    ]
   },
   "subscribe": {
    "allow": [
     "_INBOX.<site>.provisioner.>",
     "windfall.logs.asked.provisioner"
    ]
   }
  },
  "profiler": {
   "publish": {
    "allow": [
     "windfall.v1.node.profiled.<site>",
     "windfall.v1.link.measured.<site>",
     "windfall.v1.link.degraded.<site>",
     "windfall.v1.link.recovered.<site>",
     "windfall.dead.profiler.>",
     "$JS.API.INFO",
     "$JS.hub.API.INFO",
     "$JS.API.STREAM.LIST",
     "$JS.API.STREAM.INFO.EVENTS",
     "$JS.API.STREAM.CREATE.EVENTS",
     "$JS.API.STREAM.UPDATE.EVENTS",
     "$JS.API.STREAM.INFO.COMMANDS",
     "$JS.API.STREAM.CREATE.COMMANDS",
     "$JS.API.STREAM.UPDATE.COMMANDS",
     "$JS.API.STREAM.INFO.DEAD",
     "$JS.API.STREAM.CREATE.DEAD",
     "$JS.API.STREAM.UPDATE.DEAD",
     "$JS.API.CONSUMER.DURABLE.CREATE.COMMANDS.profiler",
     "$JS.API.CONSUMER.CREATE.COMMANDS.profiler",
     "$JS.API.CONSUMER.INFO.COMMANDS.profiler",
     "$JS.API.CONSUMER.MSG.NEXT.COMMANDS.profiler",
     "$JS.ACK.COMMANDS.profiler.>",
     "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.profiler",
     "$JS.API.CONSUMER.CREATE.EVENTS.profiler",
     "$JS.API.CONSUMER.INFO.EVENTS.profiler",
     "$JS.API.CONSUMER.MSG.NEXT.EVENTS.profiler",
     "$JS.ACK.EVENTS.profiler.>",
     "windfall.logs.told.profiler.*"
    ]
   },
   "subscribe": {
    "allow": [
     "_INBOX.<site>.profiler.>",
     "windfall.logs.asked.profiler"
    ]
   }
  },
  "site-trainer": {
   "publish": {
    "allow": [
     "windfall.v1.task.learnt.<site>",
     "windfall.v1.training.started.<site>",
     "windfall.v1.site.withheld.<site>",
     "windfall.v1.site.drained.<site>",
     "windfall.dead.site-trainer.>",
     "$JS.API.INFO",
     "$JS.hub.API.INFO",
     "$JS.API.STREAM.LIST",
     "$JS.API.STREAM.INFO.EVENTS",
     "$JS.API.STREAM.CREATE.EVENTS",
     "$JS.API.STREAM.UPDATE.EVENTS",
     "$JS.API.STREAM.INFO.COMMANDS",
     "$JS.API.STREAM.CREATE.COMMANDS",
     "$JS.API.STREAM.UPDATE.COMMANDS",
     "$JS.API.STREAM.INFO.DEAD",
     "$JS.API.STREAM.CREATE.DEAD",
     "$JS.API.STREAM.UPDATE.DEAD",
     "$JS.API.CONSUMER.DURABLE.CREATE.COMMANDS.site-trainer",
     "$JS.API.CONSUMER.CREATE.COMMANDS.site-trainer",
     "$JS.API.CONSUMER.INFO.COMMANDS.site-trainer",
     "$JS.API.CONSUMER.MSG.NEXT.COMMANDS.site-trainer",
     "$JS.ACK.COMMANDS.site-trainer.>",
     "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.*",
     "$JS.API.CONSUMER.CREATE.EVENTS.*",
     "$JS.API.CONSUMER.INFO.EVENTS.*",
     "$JS.API.CONSUMER.MSG.NEXT.EVENTS.*",
     "$JS.ACK.EVENTS.*.>",
     "windfall.logs.told.site-trainer.*"
    ],
    "deny": [
     "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.energy-watcher",
     "$JS.API.CONSUMER.CREATE.EVENTS.energy-watcher",
     "$JS.API.CONSUMER.INFO.EVENTS.energy-watcher",
     "$JS.API.CONSUMER.MSG.NEXT.EVENTS.energy-watcher",
     "$JS.ACK.EVENTS.energy-watcher.>",
     "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.provisioner",
     "$JS.API.CONSUMER.CREATE.EVENTS.provisioner",
     "$JS.API.CONSUMER.INFO.EVENTS.provisioner",
     "$JS.API.CONSUMER.MSG.NEXT.EVENTS.provisioner",
     "$JS.ACK.EVENTS.provisioner.>",
     "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.profiler",
     "$JS.API.CONSUMER.CREATE.EVENTS.profiler",
     "$JS.API.CONSUMER.INFO.EVENTS.profiler",
     "$JS.API.CONSUMER.MSG.NEXT.EVENTS.profiler",
     "$JS.ACK.EVENTS.profiler.>"
    ]
   },
   "subscribe": {
    "allow": [
     "_INBOX.<site>.site-trainer.>",
     "windfall.logs.asked.site-trainer"
    ]
   }
  }
 },
 "leaf": {
  "publish": {
   "allow": [
    "$JS.hub.API.INFO",
    "$JS.hub.API.CONSUMER.CREATE.ORDERS.*.windfall.v1.command.*.*.<site>",
    "_DELIVERED.hub.<site>.>",
    "_INBOX.hub.>",
    "$JSC.>",
    "$JS.FC.ORDERS.>"
   ]
  },
  "subscribe": {
   "allow": [
    "$JS.<site>.API.INFO",
    "$JS.<site>.API.CONSUMER.CREATE.EVENTS",
    "$JS.<site>.API.CONSUMER.CREATE.EVENTS.>",
    "_DELIVERED.<site>.hub.>",
    "_INBOX.<site>.>",
    "$JSC.>",
    "$JS.FC.EVENTS.>"
   ]
  }
 },
 "loan": {
  "subject": "windfall.v1.<fact>.<whom>",
  "lent": "windfall.lent.<borrower>.<fact>.<whom>",
  "publish": [
   "windfall.lent.<borrower>.<fact>.<whom>",
   "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.lends-<borrower>",
   "$JS.API.CONSUMER.CREATE.EVENTS.lends-<borrower>",
   "$JS.API.CONSUMER.INFO.EVENTS.lends-<borrower>",
   "$JS.API.CONSUMER.MSG.NEXT.EVENTS.lends-<borrower>",
   "$JS.ACK.EVENTS.lends-<borrower>.>"
  ],
  "facts": [
   "signal.observed",
   "signal.refused",
   "signal.stale",
   "signal.recovered",
   "signal.forecast",
   "plan.made",
   "window.expected",
   "window.withdrawn",
   "window.judged",
   "window.opened",
   "node.hindered",
   "node.ready",
   "node.failed",
   "node.profiled",
   "link.measured",
   "link.degraded",
   "link.recovered",
   "site.refused",
   "site.joined",
   "task.learnt",
   "advice.given",
   "round.started",
   "training.started",
   "contribution.accepted",
   "contribution.refused",
   "round.completed",
   "epoch.completed",
   "round.discarded",
   "round.evaluated",
   "checkpoint.damaged",
   "window.closing",
   "window.closed",
   "site.withheld",
   "site.drained",
   "site.left",
   "node.released",
   "energy.recorded",
   "federation.paused",
   "federation.resumed",
   "federation.finished"
  ]
 }
}
{{- end }}
