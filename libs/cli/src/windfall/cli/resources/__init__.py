"""What ``windfall get`` and its like show: each resource is a fold over the events of a server.

Nobody keeps these tables: they are the same for whoever reads the stream that the server holds.
"""
