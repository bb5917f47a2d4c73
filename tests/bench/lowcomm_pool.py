"""Runs plans on every core, and remembers what each gave, so that a benchmark that was broken off goes on."""

import hashlib
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from tests.bench.figures import RESULTS
from tests.bench.lowcomm_run import Outcome, Plan, Point

RUNS: Final = RESULTS / "runs"
NICENESS: Final = 15
VERSION: Final = 1
"""Raise it when the same plan no longer gives the same bits."""

Runner = Callable[[Plan, Path], Outcome]
"""A module's function that furnishes folders in an empty one and runs the plan."""


def outcomes(plans: Sequence[Plan], runner: Runner, done: bool = False) -> dict[Plan, Outcome]:
    """What each plan gives; those that were run before are read from ``bench-results/runs``.

    Args:
        done: no others.
    """
    found = {plan: _read(plan) for plan in plans}
    missing = [plan for plan, outcome in found.items() if outcome is None]
    if missing and not done:
        print(f"{len(found) - len(missing)} runs are there, {len(missing)} to come", flush=True)
        # Spawned: a fork of a process that has used torch may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(os.cpu_count(), mp_context=context, initializer=_alone) as pool:
            running = {pool.submit(_run, runner, plan): plan for plan in missing}
            for ended in as_completed(running):
                plan, outcome = running[ended], ended.result()
                found[plan] = outcome
                _write(plan, outcome)
                print(f"  {named(plan)}: loss {outcome.loss:.4f} in {outcome.seconds:.0f} s", flush=True)
    return {plan: outcome for plan, outcome in found.items() if outcome is not None}


def named(plan: Plan) -> str:
    """A plan in a few words."""
    words = [plan.task, plan.codec, plan.outer, f"{plan.sites} sites", f"H {plan.round_steps}", f"seed {plan.seed}"]
    return ", ".join(
        [*filter(None, words), *(["churn"] if plan.churn else []), *([plan.split] if plan.split != "iid" else [])]
    )


def _run(runner: Runner, plan: Plan) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        return runner(plan, Path(folder))


def _alone() -> None:
    """A run has one core, and gives way to whatever else the machine does."""
    os.nice(NICENESS)
    torch.set_num_threads(1)


def _path(plan: Plan) -> Path:
    # What is left out decides nothing, and names the run as before there was such a word.
    decides = {name: value for name, value in asdict(plan).items() if (name, value) != ("batches", ())}
    text = json.dumps({"version": VERSION, **decides}, sort_keys=True)
    return RUNS / f"{plan.task}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def _write(plan: Plan, outcome: Outcome) -> None:
    RUNS.mkdir(parents=True, exist_ok=True)
    path = _path(plan)
    path.with_suffix(".part").write_text(
        json.dumps({"plan": asdict(plan), "outcome": asdict(outcome)}, indent=1) + "\n"
    )
    path.with_suffix(".part").replace(path)


def _read(plan: Plan) -> Outcome | None:
    try:
        seen: dict[str, Any] = json.loads(_path(plan).read_text())["outcome"]
    except FileNotFoundError:
        return None
    return Outcome(**{**seen, "points": tuple(Point(**point) for point in seen["points"])})
