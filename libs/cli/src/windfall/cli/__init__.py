"""The person's door: the ``windfall`` command.

It imports no service: it starts them as processes, talks to them over the bus, and tells afterwards what happened.
"""
