"""Differential privacy with clipping at the nodes, around a stock FedAvg."""

import json
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import DifferentialPrivacyClientSideFixedClipping, FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    least = config["min-nodes"]
    torch.manual_seed(1)
    initial = ArrayRecord(torch.nn.Linear(4, 3).state_dict())
    strategy = DifferentialPrivacyClientSideFixedClipping(
        FedAvg(min_train_nodes=least, min_evaluate_nodes=least, min_available_nodes=least),
        noise_multiplier=config["noise-multiplier"],
        clipping_norm=config["clipping-norm"],
        num_sampled_clients=least,
    )
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=config["num-server-rounds"])
    first, last = initial.to_torch_state_dict(), result.arrays.to_torch_state_dict()
    told = {
        "moved": float(torch.cat([(last[key] - first[key]).flatten() for key in first]).norm()),
        "evaluate": [dict(one) for one in result.evaluate_metrics_clientapp.values()],
    }
    Path("metrics.json").write_text(json.dumps(told))
