"""Flower's older API, a ``client_fn`` and a ``NumPyClient``, behind its mod for secure aggregation."""

import numpy as np
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import Context


class Adding(NumPyClient):
    """Adds the node's number + 1. Who drops out does so when it has shared its keys, and is to send its vector."""

    def __init__(self, node: int, drops: bool) -> None:
        self.step = node + 1
        self.drops = drops

    def fit(self, parameters, config):
        if self.drops:
            raise ConnectionError("this node drops out")
        return [values + np.float32(self.step) for values in parameters], 1, {}

    def evaluate(self, parameters, config):
        return float(parameters[0].mean()), 1, {"mean": float(parameters[0].mean())}


def client(context: Context):
    node = context.node_config["partition-id"]
    return Adding(node, node == context.run_config["drops"]).to_client()


def masked(message, context, call_next):
    """The mod, unless the app is to average without masks."""
    if context.run_config["secure"]:
        return secaggplus_mod(message, context, call_next)
    return call_next(message, context)


app = ClientApp(client_fn=client, mods=[masked])
