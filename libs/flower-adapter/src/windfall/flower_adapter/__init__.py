"""The door between Flower and Windfall, and the only package that imports ``flwr``, whose version is pinned.

Any Flower ``Strategy`` and any ``ClientApp`` of the message API run over our transport unchanged:

``coordinator``
    Runs a stock ServerApp (``python -m windfall.flower_adapter.coordinator``) in place of the federation-coordinator.
    Its ``Grid`` (``grid``) sends over ``Messages`` (gRPC), keeps every answer on disk, and answers for a site that is
    gone with an error at once. After ``kill -9`` the ServerApp is run again and meets what it met before.
``site``
    A warm process that runs a ClientApp's messages one after another (``python -m windfall.flower_adapter.site``), as
    the provisioner starts it with the window (``WINDFALL_NODE_MODULE``) and drains it at the window's end.
``arrays``, ``types_kept``
    bfloat16, float8 and whole numbers keep their types through strategies that know none of the former and make
    float64 of the latter.
``shim``
    Everything that Flower does not promise, and the versions that this works with.

What stays Flower's: a strategy holds all replies to a batch in memory at once (capped by
``WINDFALL_MAX_BUFFERED_BYTES``), a ClientApp cannot be interrupted (it may look at ``window``), and one process runs
one app. ``flat`` turns a record into the flat fp32 vector of the native rounds, which never come this way.

Importing it sends nothing and writes nothing: Flower reports its use only from its own commands, which are not called.
It does set ``GRPC_VERBOSITY`` to ``error`` in the process, where nothing else is set.
"""
