"""A body that is shared and clipped, and a head that every node keeps for itself, in torch."""

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import fixedclipping_mod
from torch import nn

HEAD = "head"


def counting_mod(message: Message, context: Context, call_next) -> Message:
    """Counts what passes, in the node's own state."""
    passed = context.state.setdefault("passed", ConfigRecord({"kinds": []}))
    passed["kinds"] = [*passed["kinds"], message.metadata.message_type]
    return call_next(message, context)


app = ClientApp(mods=[counting_mod])


def model_of(message: Message, context: Context) -> tuple[nn.Linear, nn.Linear]:
    body, head = nn.Linear(4, 3), nn.Linear(3, 1)
    body.load_state_dict(message.content["arrays"].to_torch_state_dict())
    nn.init.constant_(head.weight, 0.1)
    if HEAD in context.state.array_records:
        head.load_state_dict(context.state[HEAD].to_torch_state_dict())
    return body, head


@app.train(mods=[fixedclipping_mod])
def train(message: Message, context: Context) -> Message:
    body, head = model_of(message, context)
    dice = torch.Generator().manual_seed(context.node_config["partition-id"])
    inputs = torch.randn(32, 4, generator=dice)
    targets = inputs.sum(dim=1, keepdim=True) * (1 + context.node_config["partition-id"])
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.05)
    for _ in range(10):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(head(body(inputs)), targets)
        loss.backward()
        optimizer.step()
    context.state[HEAD] = ArrayRecord(head.state_dict())
    metrics = MetricRecord({"num-examples": 32, "train_loss": loss.item()})
    return Message(RecordDict({"arrays": ArrayRecord(body.state_dict()), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    _, head = model_of(message, context)
    kinds = context.state["passed"]["kinds"]
    metrics = {
        "num-examples": 1,
        "trained": kinds.count("train"),
        "evaluated": kinds.count("evaluate"),
        "head": head.weight.abs().sum().item(),
    }
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)
