"""Asks every node, tells every node something without waiting for replies, and asks again."""

import json
import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


def to_all(grid: Grid, nodes: list[int], kind: str, config: dict) -> list[Message]:
    content = RecordDict({"config": ConfigRecord(config)})
    return [Message(content=content, message_type=kind, dst_node_id=node) for node in nodes]


@app.main()
def main(grid: Grid, context: Context) -> None:
    while len(nodes := sorted(grid.get_node_ids())) < context.run_config["min-nodes"]:
        time.sleep(0.05)
    bins = {"bins": context.run_config["bins"]}
    first = grid.send_and_receive(to_all(grid, nodes, "query.histogram", bins))
    grid.push_messages(to_all(grid, nodes, "train.note", {"name": "windfall"}))
    second = grid.send_and_receive(to_all(grid, nodes, "query.histogram", bins))
    counts = [reply.content["counts"]["counts"] for reply in first]
    told = {
        "counts": [sum(column) for column in zip(*counts, strict=True)],
        "heard": [name for reply in second for name in reply.content["told"]["names"]],
    }
    Path("histogram.json").write_text(json.dumps(told))
