"""What services may say to each other: data only.

``events`` and ``commands`` are the sentences, ``subjects`` where they travel, ``envelope`` how they look on the wire,
``v1`` the generated gRPC stubs. Nothing here does I/O, and nothing here imports another Windfall package.
"""
