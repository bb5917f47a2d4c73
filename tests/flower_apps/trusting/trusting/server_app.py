"""A FedAvg that learns less in later rounds and gives no weight to what is far from the median."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

_TRUSTED = "trusted-examples"

app = ServerApp()


class Trusting(FedAvg):
    """Overrides what happens to a round before it is sent and after it has come back."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.before = arrays
        if server_round > 1:
            config["lr"] *= 0.9
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        sound, _ = self._check_and_log_replies(replies, is_train=True)
        if not sound:
            return None, None
        contents = [reply.content for reply in sound]
        (before,) = self.before.to_numpy_ndarrays()
        lengths = [np.linalg.norm(content["arrays"].to_numpy_ndarrays()[0] - before) for content in contents]
        for content, length in zip(contents, lengths, strict=True):
            trusted = length <= 10 * np.median(lengths)
            content["metrics"][_TRUSTED] = content["metrics"][self.weighted_by_key] * (1.0 if trusted else 1e-12)
        metrics = self.train_metrics_aggr_fn(contents, self.weighted_by_key)
        return aggregate_arrayrecords(contents, _TRUSTED), metrics


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    least = config["min-nodes"]
    strategy = Trusting(min_train_nodes=least, min_evaluate_nodes=least, min_available_nodes=least)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([np.zeros(3)]),
        num_rounds=config["num-server-rounds"],
        train_config=ConfigRecord({"lr": config["learning-rate"]}),
        evaluate_fn=lambda _, arrays: MetricRecord({"length": float(np.linalg.norm(arrays.to_numpy_ndarrays()[0]))}),
    )
    told = {
        "train": [dict(one) for one in result.train_metrics_clientapp.values()],
        "evaluate": [dict(one) for one in result.evaluate_metrics_clientapp.values()],
        "length": [one["length"] for one in result.evaluate_metrics_serverapp.values()],
    }
    Path("metrics.json").write_text(json.dumps(told))
