"""Adds the node's number + 1 to the model. Where the node's data has a FIFO for the round, it waits there."""

import time
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    number, data = message.content["config"]["server-round"], Path(context.node_config["data-dir"])
    seen = context.state.setdefault("seen", ConfigRecord({"rounds": []}))
    seen["rounds"] = [*seen["rounds"], number]
    (data / "rounds").write_text(" ".join(map(str, seen["rounds"])))
    with (data / "cpu").open("a") as spent:
        print(time.process_time(), file=spent)
    if (gate := data / f"gate-{number}").exists():
        gate.open().read()
    step = context.node_config["partition-id"] + 1
    arrays = [values + step for values in message.content["arrays"].to_numpy_ndarrays()]
    metrics = MetricRecord({"num-examples": 1, "train_loss": 1.0 / number})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    mean = float(message.content["arrays"].to_numpy_ndarrays()[0].mean())
    metrics = MetricRecord({"num-examples": 1, "eval_loss": 1.0 / (1.0 + mean)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
