"""The door between Flower and Windfall, and the only package that imports ``flwr``, whose version is pinned.

Today it speaks Flower's records: ``arrays`` turns a model's tensors into an ``ArrayRecord`` and back without losing a
bit, ``flat`` turns a record into the flat fp32 vector that Pull and Push carry and back. That is enough to hand
contributions to the ``aggregate_train`` of a stock strategy and to take its answer.

It does not yet run a whole Flower project: there is no Grid over Windfall's transport, so a strategy's own ``start()``
has nobody to talk to, and no host for a ClientApp inside a site's trainer. Only float32 models travel: counters such as
BatchNorm's ``num_batches_tracked`` stay at the site, and stock strategies cannot average bfloat16 or float8.

Importing it sends nothing and writes nothing: Flower reports its use only from its own commands, which are not called.
It does set ``GRPC_VERBOSITY`` to ``error`` in the process, where nothing else is set.
"""
