"""``windfall logs``: the last lines of a service's log, at its own server."""
