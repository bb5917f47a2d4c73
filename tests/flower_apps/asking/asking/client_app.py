"""Trains nothing: counts the node's own values in bins, and takes note of what it is told."""

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query("histogram")
def histogram(message: Message, context: Context) -> Message:
    node, bins = context.node_config["partition-id"], message.content["config"]["bins"]
    counts, _ = np.histogram(np.arange(8) / 8 + node, bins=bins, range=(0, bins))
    told = context.state.get("told", ConfigRecord({"names": []}))["names"]
    content = {"counts": MetricRecord({"counts": counts.tolist()}), "told": ConfigRecord({"names": told})}
    return Message(RecordDict(content), reply_to=message)


@app.train("note")
def note(message: Message, context: Context) -> Message:
    context.state["told"] = ConfigRecord({"names": [message.content["config"]["name"]]})
    return Message(RecordDict(), reply_to=message)
