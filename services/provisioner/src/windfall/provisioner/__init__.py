"""Brings a site's capacity up and down with its windows: one lease, one node, never an orphan.

hears:  window.expected, window.withdrawn, window.opened, window.closed, site.drained; provisioner.acquire,
        provisioner.release
says:   node.hindered, node.ready, node.failed, node.released
serves: Capacity (Plan, Acquire, Release, List, Watch)
"""
