"""A stock FedAvg; how long each round took is written beside the process."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):
    """Notes when each round begins and when its replies are there."""

    def __init__(self, **settings: float) -> None:
        super().__init__(**settings)
        self.begun: list[float] = []
        self.cpu: list[float] = []
        self.answered: list[float] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        self.begun.append(time.monotonic())
        self.cpu.append(time.process_time())
        return list(super().configure_train(server_round, arrays, config, grid))

    def aggregate_train(self, server_round, replies):
        self.answered.append(time.monotonic())
        return super().aggregate_train(server_round, replies)


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    fraction = float(config["fraction-evaluate"])
    strategy = Timed(
        fraction_evaluate=fraction,
        min_train_nodes=config["min-nodes"],
        min_evaluate_nodes=1 if fraction else 0,
        min_available_nodes=config["min-nodes"],
    )
    initial = ArrayRecord([np.zeros(config["elements"], np.float32)])
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=config["num-server-rounds"])
    times = {"begun": strategy.begun, "answered": strategy.answered, "cpu": strategy.cpu, "ended": time.monotonic()}
    Path("rounds.json").write_text(json.dumps(times))
    np.save("final.npy", result.arrays.to_numpy_ndarrays()[0])
