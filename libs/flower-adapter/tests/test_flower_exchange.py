"""What a run lives through: messages, churn, crashes and what does not pass, in one process."""

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam, FedAvg, Result
from safetensors.torch import load_file

from windfall.contracts.events import (
    ContributionAccepted,
    ContributionRefused,
    FederationFinished,
    RoundCompleted,
    RoundEvaluated,
    RoundStarted,
    SiteJoined,
    SiteLeft,
)
from windfall.flower_adapter import window
from windfall.flower_adapter.arrays import from_record, to_record
from windfall.flower_adapter.exchange import node_id_of
from windfall.flower_adapter.reception import Caps
from windfall.flower_adapter.testing import LocalFleet

Main = Callable[[Grid, Context], None]


def server(main: Main) -> ServerApp:
    app = ServerApp()
    app.main()(main)
    return app


def averaging(results: list[Result], rounds: int = 2, **settings: float | int) -> Main:
    def main(grid: Grid, context: Context) -> None:
        settings.setdefault("min_available_nodes", 3)
        settings.setdefault("min_train_nodes", 1)
        if settings.get("fraction_evaluate") != 0.0:
            settings.setdefault("min_evaluate_nodes", 1)
        strategy = FedAvg(**settings)  # type: ignore[arg-type]
        results.append(strategy.start(grid, ArrayRecord([np.zeros(4, np.float32)]), num_rounds=rounds))

    return main


def adding(
    before: Callable[[int, int], None] = lambda partition, number: None, calls: list[tuple[int, int]] | None = None
) -> ClientApp:
    """Each node adds its number + 1; ``before`` is called with partition and round."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        partition, number = int(context.node_config["partition-id"]), int(message.content["config"]["server-round"])
        if calls is not None:
            calls.append((partition, number))
        before(partition, number)
        arrays = [values + partition + 1 for values in message.content["arrays"].to_numpy_ndarrays()]
        metrics = MetricRecord({"num-examples": 10, "train_loss": 0.5})
        return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 10, "eval_loss": 0.25, "eval_acc": 0.75})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


async def test_the_fleet_hears_of_a_run_in_its_own_words(tmp_path: Path) -> None:
    results: list[Result] = []
    async with LocalFleet(tmp_path, adding()) as fleet:
        await fleet.until_up(3)
        await fleet.run(server(averaging(results)))
        said = await fleet.said()
    kinds = [type(event) for event in said]
    assert kinds.count(SiteJoined) == 3
    assert kinds.count(RoundStarted) == kinds.count(RoundCompleted) == kinds.count(RoundEvaluated) == 2
    assert kinds.count(ContributionAccepted) == 6
    started = [event for event in said if isinstance(event, RoundStarted)]
    completed = [event for event in said if isinstance(event, RoundCompleted)]
    crossed = {of["windfall.direction"]: nbytes for nbytes, of in fleet.office.transferred.read()}
    assert crossed == {"up": sum(e.bytes_up for e in completed), "down": sum(e.bytes_down for e in completed)}
    assert [event.round for event in started] == [event.round for event in completed] == [0, 1]
    assert completed[0].model_digest == completed[1].base_digest == started[1].base_digest
    assert completed[0].contributors == fleet.sites and completed[0].tokens == 30 and completed[0].loss_nats == 0.5
    evaluated = [event for event in said if isinstance(event, RoundEvaluated)]
    assert (evaluated[0].loss_nats, evaluated[0].metric, evaluated[0].value) == (0.25, "eval_acc", 0.75)
    (finished,) = [event for event in said if isinstance(event, FederationFinished)]
    assert (finished.rounds, finished.tokens_total) == (2, 60)
    assert finished.model_digest == completed[-1].model_digest == evaluated[-1].model_digest
    assert results[0].arrays is not None
    assert (
        load_file(tmp_path / "final.safetensors")["0"].tolist() == results[0].arrays["0"].numpy().tolist() == [4.0] * 4
    )


async def test_a_query_is_answered_by_every_node_and_state_stays_at_it(tmp_path: Path) -> None:
    app = ClientApp()

    @app.query("count")
    def count(message: Message, context: Context) -> Message:
        seen = context.state.setdefault("seen", ConfigRecord({"times": 0}))
        seen["times"] += 1
        reply = ConfigRecord({"times": seen["times"], "raw": b"\0\xff", "run": context.run_config["name"]})
        return Message(RecordDict({"reply": reply}), reply_to=message)

    told: list[list[tuple[int, int]]] = []

    def main(grid: Grid, context: Context) -> None:
        nodes = list(grid.get_node_ids())
        for _ in range(2):
            messages = [Message(RecordDict(), node, "query.count") for node in nodes]
            replies = list(grid.send_and_receive(messages))
            assert {reply.content["reply"]["raw"] for reply in replies} == {b"\0\xff"}
            assert {reply.content["reply"]["run"] for reply in replies} == {"it"}
            told.append([(reply.metadata.src_node_id, reply.content["reply"]["times"]) for reply in replies])

    async with LocalFleet(tmp_path, app, config={"name": "it"}) as fleet:
        await fleet.until_up(3)
        await fleet.run(server(main))
    assert [[times for _, times in replies] for replies in told] == [[1, 1, 1], [2, 2, 2]]
    assert {node for node, _ in told[0]} == {node_id_of("local", site) for site in fleet.sites}


async def test_a_site_that_dies_answers_with_an_error_and_comes_back_as_the_same_node(tmp_path: Path) -> None:
    begun, release = threading.Event(), threading.Event()

    def before(partition: int, number: int) -> None:
        if (partition, number) == (1, 1):
            begun.set()
            release.wait(60)

    failures: list[str] = []
    results: list[Result] = []
    nodes: list[set[int]] = []

    def main(grid: Grid, context: Context) -> None:
        nodes.append(set(grid.get_node_ids()))
        averaging(results, 1)(grid, context)
        nodes.append(set(grid.get_node_ids()))

    async with LocalFleet(tmp_path, adding(before), silence=timedelta(seconds=2)) as fleet:
        await fleet.until_up(3)
        running = asyncio.create_task(fleet.run(server(main)))
        await asyncio.to_thread(begun.wait, 60)
        await fleet.kill("site-b")
        while len(fleet.office.state.members) == 3:
            await fleet.office.changed()
        await fleet.up("site-b")
        await running
        left = [event for event in await fleet.said() if isinstance(event, SiteLeft)]
    release.set()
    assert [(event.site, event.reason) for event in left] == [("site-b", "silent")]
    assert results[0].arrays is not None
    assert results[0].arrays["0"].numpy().tolist() == [2.0] * 4  # of partitions 0 and 2 alone
    assert nodes[0] == nodes[1] and not failures


async def test_a_site_whose_window_closes_is_not_waited_for(tmp_path: Path) -> None:
    begun, release = threading.Event(), threading.Event()

    def before(partition: int, number: int) -> None:
        if partition == 1:
            begun.set()
            release.wait(60)

    reasons: list[str] = []

    def main(grid: Grid, context: Context) -> None:
        content = RecordDict({"arrays": ArrayRecord([np.zeros(1)]), "config": ConfigRecord({"server-round": 1})})
        replies = grid.send_and_receive([Message(content, node, "train") for node in grid.get_node_ids()])
        reasons.extend(reply.error.reason or "" for reply in replies if reply.has_error())

    async with LocalFleet(tmp_path, adding(before), finish_within=timedelta(seconds=0.2)) as fleet:
        await fleet.until_up(3)
        running = asyncio.create_task(fleet.run(server(main)))
        await asyncio.to_thread(begun.wait, 60)
        node = fleet.nodes["site-b"]
        node.stop("the window closed")
        await node.finished.wait()
        await running
    release.set()
    assert reasons == ["site-b goes dark before the ClientApp has ended"]
    assert not node.session.delivered


async def test_a_batch_whose_sites_all_go_dark_waits_for_the_first_to_come_back(tmp_path: Path) -> None:
    """That is a pause and not a result: the strategy's round is not spent on it."""
    begun, dark = threading.Event(), threading.Event()

    def before(partition: int, number: int) -> None:
        if number == 2 and not dark.is_set():
            begun.set()
            dark.wait(60)

    calls: list[tuple[int, int]] = []
    results: list[Result] = []
    async with LocalFleet(tmp_path, adding(before, calls), ("site-a",), finish_within=timedelta(seconds=0.1)) as fleet:
        await fleet.until_up(1)
        main = averaging(results, 3, fraction_evaluate=0.0, min_available_nodes=1)
        running = asyncio.create_task(fleet.run(server(main)))
        await asyncio.to_thread(begun.wait, 60)
        node = fleet.nodes["site-a"]
        node.stop("the window closed")
        await node.finished.wait()
        assert not fleet.office.state.members
        dark.set()
        await fleet.up("site-a")
        await running
        said = await fleet.said()
    assert calls == [(0, 1), (0, 2), (0, 2), (0, 3)]
    assert results[0].arrays is not None and results[0].arrays["0"].numpy().tolist() == [3.0] * 4
    assert [event.round for event in said if isinstance(event, RoundStarted)] == [0, 1, 2]
    assert [event.round for event in said if isinstance(event, RoundCompleted)] == [0, 1, 2]


async def test_a_site_that_drains_is_not_sampled(tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()
    nodes: list[list[int]] = []

    def before(partition: int, number: int) -> None:
        if partition == 0:
            begun.set()
            go.wait(60)

    def main(grid: Grid, context: Context) -> None:
        content = RecordDict({"arrays": ArrayRecord([np.zeros(1)]), "config": ConfigRecord({"server-round": 1})})
        nodes.append(list(grid.get_node_ids()))
        ids = grid.push_messages([Message(content, nodes[0][0], "train")])
        begun.wait(60)
        while len(nodes[-1]) > 1:
            threading.Event().wait(0.02)  # as an app that polls does
            nodes.append(list(grid.get_node_ids()))
        go.set()
        while not list(grid.pull_messages(ids)):
            threading.Event().wait(0.02)

    async with LocalFleet(tmp_path, adding(before), ("site-a", "site-b")) as fleet:
        await fleet.until_up(2)
        running = asyncio.create_task(fleet.run(server(main)))
        await asyncio.to_thread(begun.wait, 60)
        fleet.nodes["site-a"].stop("the window closed")
        await running
    assert nodes[-1] == [node_id_of("local", "site-b")]


async def test_a_run_that_is_too_large_to_be_resumed_begins_anew(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    results: list[Result] = []

    def broken(grid: Grid, context: Context) -> None:
        averaging([], 2, min_train_nodes=3)(grid, context)
        raise RuntimeError("after two rounds")

    async with LocalFleet(tmp_path, adding(calls=calls), replay_bytes=100) as fleet:
        await fleet.until_up(3)
        with pytest.raises(Exception, match="after two rounds"):
            await fleet.run(server(broken))
        assert not fleet.office.state.replayable
    calls.clear()
    async with LocalFleet(tmp_path, adding(calls=calls)) as again:
        await again.until_up(3)
        await again.run(server(averaging(results, 2, min_train_nodes=3)))
    assert sorted(calls) == [(partition, number) for partition in range(3) for number in (1, 2)]
    assert results[0].arrays is not None and results[0].arrays["0"].numpy().tolist() == [4.0] * 4


async def test_an_app_that_looks_at_the_window_replies_with_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "_closing", threading.Event())
    begun = threading.Event()

    def before(partition: int, number: int) -> None:
        if partition == 1:
            begun.set()
            window._closing.wait(60)
            assert window.closing()

    results: list[Result] = []
    async with LocalFleet(tmp_path, adding(before)) as fleet:
        await fleet.until_up(3)
        running = asyncio.create_task(fleet.run(server(averaging(results, 1, fraction_evaluate=0.0))))
        await asyncio.to_thread(begun.wait, 60)
        node = fleet.nodes["site-b"]
        node.stop("the window closed")
        await node.finished.wait()
        await running
        accepted = [event.site for event in await fleet.said() if isinstance(event, ContributionAccepted)]
    assert sorted(accepted) == list(fleet.sites)
    assert node.session.delivered


async def test_a_coordinator_that_was_killed_goes_on_in_the_same_round(tmp_path: Path) -> None:
    """Replies that had come count, nobody who has replied trains again, and the result is the one of a quiet run."""
    calls: list[tuple[int, int]] = []
    begun, release = threading.Event(), threading.Event()

    def before(partition: int, number: int) -> None:
        if (partition, number) == (1, 3) and not release.is_set():
            begun.set()
            release.wait(60)

    def everyone(results: list[Result]) -> Main:
        return averaging(results, 5, min_train_nodes=3)

    results: list[Result] = []
    cut = LocalFleet(tmp_path, adding(before, calls))
    async with cut:
        await cut.until_up(3)
        running = asyncio.create_task(cut.run(server(everyone(results))))
        await asyncio.to_thread(begun.wait, 60)
        while len(cut.office.state.waiting) > 1:
            await cut.office.changed()
        running.cancel()
    assert not results
    before_the_cut = list(calls)
    calls.clear()
    release.set()
    async with LocalFleet(tmp_path, adding(before, calls)) as again:
        await again.run(server(everyone(results)))
        said = await again.said()
    assert sorted(before_the_cut) == [(partition, number) for partition in range(3) for number in (1, 2, 3)]
    assert sorted(calls) == sorted([(1, 3), *((partition, number) for partition in range(3) for number in (4, 5))])
    assert results[0].arrays is not None
    assert results[0].arrays["0"].numpy().tolist() == [10.0] * 4
    rounds = [event.round for event in said if isinstance(event, RoundCompleted)]
    assert rounds == sorted(set(rounds)) and rounds[-1] == 4


async def test_what_a_strategy_draws_is_drawn_again_after_a_crash(tmp_path: Path) -> None:
    """Sampled nodes, noise and an initial model that nobody seeded are the same ones in the replay."""
    sent: list[list[tuple[int, float]]] = []

    def main(grid: Grid, context: Context) -> None:
        strategy = FedAdam(
            fraction_train=0.7, min_train_nodes=2, fraction_evaluate=0.4, min_evaluate_nodes=1, min_available_nodes=3
        )
        pushed: list[tuple[int, float]] = []
        sent.append(pushed)
        whole = grid.send_and_receive

        def watched(messages: list[Message], *, timeout: float | None = None) -> list[Message]:
            batch = list(messages)
            for message in batch:
                (record,) = message.content.array_records.values()
                pushed.append((message.metadata.dst_node_id, float(record["0"].numpy().sum())))
            if len(sent) == 1 and len(pushed) > 7:
                raise RuntimeError("the crash")
            return list(whole(batch, timeout=timeout))

        grid.send_and_receive = watched  # type: ignore[method-assign, assignment]
        initial = np.random.normal(size=4).astype(np.float32)
        strategy.start(grid, ArrayRecord([initial]), num_rounds=4)

    async with LocalFleet(tmp_path, adding()) as fleet:
        await fleet.until_up(3)
        with pytest.raises(Exception, match="the crash"):
            await fleet.run(server(main))
    np.random.seed(3)
    async with LocalFleet(tmp_path, adding()) as again:
        await again.until_up(3)
        await again.run(server(main))
    first, second = sent
    assert second[: len(first)][:6] == first[:6]
    assert len(second) == 12


async def test_whole_numbers_and_narrow_floats_keep_their_types(tmp_path: Path) -> None:
    seen: list[dict[str, torch.dtype]] = []
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        state = from_record(message.content["arrays"])
        seen.append({name: tensor.dtype for name, tensor in state.items()})
        state["n"] += int(context.node_config["partition-id"])
        state["w"] += 1
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": to_record(state), "metrics": metrics}), reply_to=message)

    results: list[Result] = []

    def main(grid: Grid, context: Context) -> None:
        state = {
            "w": torch.ones(3, dtype=torch.bfloat16),
            "n": torch.tensor(2**40, dtype=torch.int64),
            "f": torch.zeros(2),
        }
        strategy = FedAvg(min_train_nodes=3, min_available_nodes=3, fraction_evaluate=0.0)
        results.append(strategy.start(grid, to_record(state), num_rounds=2))

    async with LocalFleet(tmp_path, app) as fleet:
        await fleet.until_up(3)
        await fleet.run(server(main))
    types = {"w": torch.bfloat16, "n": torch.int64, "f": torch.float32}
    assert seen == [types] * 6
    assert results[0].arrays is not None
    final = from_record(results[0].arrays)
    assert {name: tensor.dtype for name, tensor in final.items()} == types
    assert final["w"].tolist() == [3.0] * 3 and int(final["n"]) == 2**40 + 2
    assert load_file(tmp_path / "final.safetensors")["n"].dtype == torch.int64


@pytest.mark.parametrize(
    ("caps", "spoil", "reason", "text"),
    [
        (Caps(1000, 10**6, True), np.zeros(1000, np.float32), "size", "at most 1000 are taken"),
        (Caps(10**5, 5000, True), np.zeros(1000, np.float32), "size", "at most 5000 are buffered"),
        (Caps(10**5, 10**6, True), np.array([1, np.nan, 0, 0], np.float32), "not-finite", "holds NaN or infinity"),
    ],
    ids=["a-message", "all-of-a-batch", "not-finite"],
)
async def test_a_reply_that_does_not_pass_is_refused_with_its_reason_and_the_round_goes_on(
    tmp_path: Path, caps: Caps, spoil: np.ndarray, reason: str, text: str
) -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        values = spoil if context.node_config["partition-id"] == 2 else np.ones(4, np.float32)
        metrics = MetricRecord({"num-examples": 1})
        return Message(
            RecordDict({"arrays": ArrayRecord([values]), "metrics": metrics}),
            reply_to=message,
        )

    replies: list[Message] = []

    def main(grid: Grid, context: Context) -> None:
        content = RecordDict({"arrays": ArrayRecord([np.zeros(4, np.float32)])})
        replies.extend(grid.send_and_receive([Message(content, node, "train") for node in grid.get_node_ids()]))

    if reason == "size" and caps.buffered == 5000:
        spoil = np.zeros(1300, np.float32)
    async with LocalFleet(tmp_path, app, caps=caps) as fleet:
        await fleet.until_up(3)
        await fleet.run(server(main))
        refused = [event for event in await fleet.said() if isinstance(event, ContributionRefused)]
    assert [(event.site, event.reason) for event in refused] == [("site-c", reason)]
    assert text in refused[0].detail
    (error,) = [reply.error for reply in replies if reply.has_error()]
    assert text in (error.reason or "")
    assert len(replies) == 3


async def test_an_app_that_breaks_is_an_error_reply_with_its_exception(tmp_path: Path) -> None:
    def before(partition: int, number: int) -> None:
        if partition == 0:
            raise ZeroDivisionError("of all things")

    replies: list[Message] = []

    def main(grid: Grid, context: Context) -> None:
        content = RecordDict({"arrays": ArrayRecord([np.zeros(1)]), "config": ConfigRecord({"server-round": 1})})
        replies.extend(grid.send_and_receive([Message(content, node, "train") for node in grid.get_node_ids()]))

    async with LocalFleet(tmp_path, adding(before)) as fleet:
        await fleet.until_up(3)
        await fleet.run(server(main))
    (error,) = [reply.error for reply in replies if reply.has_error()]
    assert error.code == 2 and "ZeroDivisionError" in (error.reason or "") and "of all things" in (error.reason or "")


async def test_a_timeout_returns_what_there_is(tmp_path: Path) -> None:
    release = threading.Event()

    def before(partition: int, number: int) -> None:
        if partition == 2:
            release.wait(60)

    counts: list[int] = []

    def main(grid: Grid, context: Context) -> None:
        content = RecordDict({"arrays": ArrayRecord([np.zeros(1)]), "config": ConfigRecord({"server-round": 1})})
        ids = list(grid.push_messages([Message(content, node, "train") for node in grid.get_node_ids()]))
        counts.append(len(ids))
        messages = [Message(content, node, "train") for node in list(grid.get_node_ids())[2:]]
        counts.append(len(list(grid.send_and_receive(messages, timeout=0.2))))
        release.set()
        got = 0
        while got < 3:
            got += len(list(grid.pull_messages(ids)))
            threading.Event().wait(0.02)  # as an app that polls does
        counts.append(got)

    async with LocalFleet(tmp_path, adding(before)) as fleet:
        await fleet.until_up(3)
        await fleet.run(server(main))
    assert counts == [3, 0, 3]


def test_a_bool_array_and_large_counters_come_back() -> None:
    from windfall.flower_adapter.types_kept import TypesKept

    kept = TypesKept()
    kept.kept(RecordDict({"a": ArrayRecord({"b": Array(np.array([True])), "n": Array(np.array([2**63 - 1]))})}))
    back = kept.kept(RecordDict({"a": ArrayRecord({"b": Array(np.array([0.7])), "n": Array(np.array([1e30]))})}))
    assert back["a"]["b"].numpy().tolist() == [True]
    assert back["a"]["n"].dtype == "int64" and back["a"]["n"].numpy()[0] > 2**62
