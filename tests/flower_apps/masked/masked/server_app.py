"""Secure aggregation (SecAgg+) by Flower's own workflow: the coordinator sees masked vectors and their sum."""

import numpy as np
from flwr.common import Context, ndarrays_to_parameters
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    told = context.run_config
    least = told["min-nodes"]
    strategy = FedAvg(
        min_fit_clients=least,
        fraction_evaluate=told["fraction-evaluate"],
        min_evaluate_clients=least if told["fraction-evaluate"] else 0,
        min_available_clients=least,
        initial_parameters=ndarrays_to_parameters([np.zeros((2, told["columns"]), np.float32)]),
    )
    legacy = LegacyContext(
        context=context, config=ServerConfig(num_rounds=told["num-server-rounds"]), strategy=strategy
    )
    secure = SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2, clipping_range=16.0)
    # Beside plain averaging, so that the masks' price can be told.
    DefaultWorkflow(fit_workflow=secure if told["secure"] else None)(grid, legacy)
