"""Finds out what came up at a site, measures it and recommends how to train on it.

hears   node.ready, window.expected, window.withdrawn, window.opened, window.closed, command.profiler.probe
says    node.profiled, link.measured, link.degraded, link.recovered
writes  profile.json, and the node's labels for Node Feature Discovery
serves  gRPC LinkProbe, so that the coordinator's end can measure the link too
"""
