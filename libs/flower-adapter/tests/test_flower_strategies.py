"""Every stock strategy comes to the same arrays over our transport as over a Grid that is no more than a loop."""

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import adaptiveclipping_mod, fixedclipping_mod
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp import strategy as stock

from windfall.flower_adapter import shim
from windfall.flower_adapter.exchange import node_id_of
from windfall.flower_adapter.testing import LocalFleet

SITES = ("site-a", "site-b", "site-c", "site-d", "site-e")
NODES = {node_id_of("local", site): index for index, site in enumerate(SITES)}
SAMPLING = {"min_train_nodes": 5, "min_evaluate_nodes": 5, "min_available_nodes": 5}


def client(mods: list[Any]) -> ClientApp:
    app = ClientApp()

    @app.train(mods=mods)
    def train(message: Message, context: Context) -> Message:
        """A step towards a point of the node's own, shorter by the proximal term of FedProx."""
        partition = int(context.node_config["partition-id"])
        (record,), config = message.content.array_records.values(), message.content["config"]
        pull = 0.5 / (1.0 + float(config.get("proximal-mu", 0.0)))
        arrays = {}
        for key, array in record.items():
            values = array.numpy()
            goal = np.full(values.shape, partition, values.dtype)
            arrays[key] = Array(np.asarray(values + pull * (goal - values), values.dtype))
        metrics = MetricRecord({"num-examples": 10 + partition, "train_loss": 1.0 / (1 + partition)})
        return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        (record,) = message.content.array_records.values()
        loss = float(sum(np.abs(array.numpy()).sum() for array in record.values()))
        return Message(RecordDict({"m": MetricRecord({"num-examples": 3, "eval_loss": loss})}), reply_to=message)

    return app


class ReferenceGrid(Grid):
    """Calls the ClientApp where it stands."""

    def __init__(self, app: ClientApp) -> None:
        self._app = app
        self._count = 0

    def set_run(self, run: Any) -> None: ...

    @property
    def run(self) -> Any:
        return None

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return tuple(NODES)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return [self._answered(message) for message in messages]

    def _answered(self, message: Message) -> Message:
        self._count += 1
        shim.name_message(message, str(self._count))
        partition = NODES[message.metadata.dst_node_id]
        context = Context(7, message.metadata.dst_node_id, {"partition-id": partition}, RecordDict(), {})
        return self._app(message, context)


def initial() -> ArrayRecord:
    return ArrayRecord({"w": Array(np.arange(12, dtype=np.float32).reshape(3, 4)), "b": Array(np.zeros(3, np.float32))})


def outcome(grid: Grid, make: Callable[[], stock.Strategy]) -> tuple[ArrayRecord, dict[int, MetricRecord]]:
    random.seed(11)  # picks the nodes, and so the order in which floats are summed
    np.random.seed(11)  # the noise of differential privacy comes from here
    result = make().start(grid, initial(), num_rounds=3, train_config=ConfigRecord({"lr": 0.1}))
    return result.arrays, result.evaluate_metrics_clientapp


def average() -> stock.FedAvg:
    return stock.FedAvg(**SAMPLING)


TABLE: list[tuple[Callable[[], stock.Strategy], list[Any]]] = [
    (average, []),
    (lambda: stock.FedAvgM(server_learning_rate=0.9, server_momentum=0.8, **SAMPLING), []),
    (lambda: stock.FedAdam(**SAMPLING), []),
    (lambda: stock.FedAdagrad(**SAMPLING), []),
    (lambda: stock.FedYogi(**SAMPLING), []),
    (lambda: stock.FedProx(proximal_mu=0.3, **SAMPLING), []),
    (lambda: stock.FedMedian(**SAMPLING), []),
    (lambda: stock.FedTrimmedAvg(beta=0.25, **SAMPLING), []),
    (lambda: stock.Krum(num_malicious_nodes=1, **SAMPLING), []),
    (lambda: stock.MultiKrum(num_malicious_nodes=1, num_nodes_to_select=3, **SAMPLING), []),
    (lambda: stock.Bulyan(num_malicious_nodes=0, **SAMPLING), []),
    (lambda: stock.QFedAvg(client_learning_rate=0.1, q=0.2, train_loss_key="train_loss", **SAMPLING), []),
    (lambda: stock.DifferentialPrivacyServerSideFixedClipping(average(), 0.5, 1.0, 5), []),
    (lambda: stock.DifferentialPrivacyServerSideAdaptiveClipping(average(), 0.1, 5, clipped_count_stddev=2.0), []),
    (lambda: stock.DifferentialPrivacyClientSideFixedClipping(average(), 0.5, 1.0, 5), [fixedclipping_mod]),
    (
        lambda: stock.DifferentialPrivacyClientSideAdaptiveClipping(average(), 0.1, 5, clipped_count_stddev=2.0),
        [adaptiveclipping_mod],
    ),
]


@pytest.mark.parametrize(("make", "mods"), TABLE, ids=[type(make()).__name__ for make, _ in TABLE])
async def test_a_stock_strategy_comes_to_the_same_model(
    tmp_path: Path, make: Callable[[], stock.Strategy], mods: list[Any]
) -> None:
    app = client(mods)
    shim.take_identity(7, shim.COORDINATOR_NODE)
    expected = outcome(ReferenceGrid(app), make)
    found: list[tuple[ArrayRecord, dict[int, MetricRecord]]] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        found.append(outcome(grid, make))

    async with LocalFleet(tmp_path, app, SITES) as fleet:
        await fleet.until_up(len(SITES))
        await fleet.run(server)
    (came,) = found
    assert list(came[0]) == list(expected[0])
    for name, array in expected[0].items():
        # The order in which floats are summed is that of the nodes as they were drawn, from a generator that is the
        # whole process's: another thread may have drawn between.
        np.testing.assert_allclose(came[0][name].numpy(), array.numpy(), rtol=1e-5, atol=1e-6)
    assert came[1].keys() == expected[1].keys()
    for number, metrics in expected[1].items():
        assert dict(came[1][number]) == pytest.approx(dict(metrics), rel=1e-5)
