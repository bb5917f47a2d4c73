"""What becomes of a lease, by what its machines say of themselves."""

from uuid import uuid4

import pytest

from windfall.provisioner.holdings import Node
from windfall.provisioner.judgement import FAILED, Goes, Stays, fit, idle, judged, last
from windfall.provisioner.machine import Machine
from windfall.provisioner.roster import Roster, counted_yet

NODE = Node(uuid4(), uuid4(), 1, "site-a-1")


def machine(uid: str, **said: object) -> Machine:
    usual: dict[str, object] = {"node": NODE, "leaving": False, "joined": uid, "ready": True, "failure": None}
    whole = {"name": uid, "uid": uid, "created": "", "waits_for": "", **usual, **said}
    return Machine(**whole)  # type: ignore[arg-type]


UNREADY = machine("b", ready=False, waits_for="InfrastructureReady False")


@pytest.mark.parametrize(
    ("mine", "given", "wants", "becomes"),
    [
        ([machine("a")], ["a"], 1, Stays("", whole=True)),
        ([UNREADY], ["b"], 1, Stays("InfrastructureReady False")),
        ([machine("a"), UNREADY], ["a", "b"], 2, Stays("InfrastructureReady False")),
        ([], [], 1, Stays("the pool is empty")),
        ([machine("a")], ["a"], 2, Stays("the pool is empty")),
        ([machine("a", failure="CreateError")], ["a"], 1, Goes("CreateError", FAILED, kill=True)),
        ([machine("a")], ["a", "b"], 2, Goes("its machine is gone", None, kill=True)),
        ([machine("a", leaving=True)], ["a"], 1, Goes("its machine is being deleted", None, kill=False)),
        ([machine("a"), machine("old", leaving=True)], ["a"], 1, Stays("", whole=True)),
    ],
)
def test_a_lease_becomes_what_its_machines_say(
    mine: list[Machine], given: list[str], wants: int, becomes: Stays | Goes
) -> None:
    assert judged(mine, given, wants, "the pool is empty") == becomes


@pytest.mark.parametrize(("wants", "trouble"), [(1, "it waits for a machine"), (2, "has 0 of 2 machines")])
def test_where_nobody_says_why_the_lease_still_does(wants: int, trouble: str) -> None:
    assert judged([], [], wants, "") == Stays(trouble)


def test_a_machine_in_its_name_already_fits_first_and_one_that_leaves_never() -> None:
    free, named, gone = machine("free", node=None), machine("named"), machine("gone", leaving=True)
    assert fit([free, named, gone], [named, gone], [], Roster()) == [named, free]


def test_what_is_nobodys_goes_before_anybodys() -> None:
    joined, late = machine("joined", node=None), machine("late", node=None, joined=None)
    roster = Roster().joined(NODE, "site-a", 1)
    assert list(idle([machine("mine"), joined, late], roster, 0)) == [joined, late]
    assert list(idle([machine("mine"), joined, late], roster, 1)) == [joined, late]
    assert list(last([machine("mine"), joined, late], roster, 1)) == [late]
    assert list(idle([machine("mine")], roster, 0)) == []


@pytest.mark.parametrize(
    ("annotations", "count", "counted"),
    [(None, None, False), ({}, None, False), ({}, 0, False), ({}, 2, True), (Roster().annotation(), 0, True)],
)
def test_until_a_lease_is_counted_whoever_writes_the_object_says_that_there_are_none(
    annotations: dict[str, str] | None, count: int | None, counted: bool
) -> None:
    found = None if annotations is None else {"metadata": {"annotations": annotations}}
    assert counted_yet(found, count) is counted
