"""Flower's older API, a ``client_fn`` and a ``NumPyClient``, behind its mod for secure aggregation."""

import numpy as np
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp


class Adding(NumPyClient):
    """Adds the node's number + 1."""

    def __init__(self, node: int) -> None:
        self.step = node + 1

    def fit(self, parameters, config):
        return [values + np.float32(self.step) for values in parameters], 1, {}

    def evaluate(self, parameters, config):
        return float(parameters[0].mean()), 1, {"mean": float(parameters[0].mean())}


app = ClientApp(
    client_fn=lambda context: Adding(context.node_config["partition-id"]).to_client(), mods=[secaggplus_mod]
)
