"""Measures what came up at a site and recommends how to train on it.

hears   node.ready, window.expected, window.withdrawn, window.opened, window.closed
says    node.profiled
serves  gRPC LinkProbe, so that the coordinator's end can measure the link too
"""
