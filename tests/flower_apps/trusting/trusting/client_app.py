"""Linear regression in NumPy on data of the node's own; the first nodes may lie about what they learnt."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

SLOPES = np.array([1.0, -2.0, 0.5])

app = ClientApp()


def samples(node: int, purpose: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets; a node has as many as its number says."""
    dice = np.random.default_rng((node, purpose))
    inputs = dice.normal(size=(64 + 32 * node, SLOPES.size))
    return inputs, inputs @ SLOPES + 0.01 * dice.normal(size=len(inputs))


@app.train()
def train(message: Message, context: Context) -> Message:
    node = context.node_config["partition-id"]
    (slopes,) = message.content["arrays"].to_numpy_ndarrays()
    inputs, targets = samples(node, 0)
    for _ in range(5):
        away = inputs @ slopes - targets
        slopes = slopes - message.content["config"]["lr"] * inputs.T @ away / len(inputs)
    if node < context.run_config["liars"]:
        slopes = slopes + 1000.0
    metrics = MetricRecord({"num-examples": len(inputs), "train_loss": float(np.mean(away**2))})
    return Message(RecordDict({"arrays": ArrayRecord([slopes]), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    (slopes,) = message.content["arrays"].to_numpy_ndarrays()
    inputs, targets = samples(context.node_config["partition-id"], 1)
    away = inputs @ slopes - targets
    metrics = MetricRecord(
        {
            "num-examples": len(inputs),
            "eval_loss": float(np.mean(away**2)),
            "worst": np.sort(np.abs(away))[-3:].tolist(),
        }
    )
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
