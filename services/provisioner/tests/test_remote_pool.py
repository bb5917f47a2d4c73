"""Who has which machine of a pool, which of them go to the back, and what a lease says of it."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from windfall.provisioner.holdings import Node
from windfall.provisioner.machine import Machine
from windfall.provisioner.manifests.pooled_machines import UNREACHABLE, Place
from windfall.provisioner.remote_pool import (
    Pooled,
    Remote,
    explained,
    gone,
    places,
    pooled,
    remote,
    unlabelled,
)

A = Pooled("quebec-a", "192.0.2.1", "quebec", None, "")
B = Pooled("quebec-b", "192.0.2.2", "quebec", None, "")
HAS_A = replace(A, taken_by="w-1")
MAKING = Remote("w-1", "w-1", "quebec", "", provisioned=False, leaving=False, labelled=True)
FAILING = replace(MAKING, failure="ProvisionFailed: no answer")
MADE = replace(MAKING, provisioned=True)
MACHINE = Machine(
    name="w-1",
    uid="1",
    created="",
    node=Node(uuid4(), uuid4(), 1, "quebec-1"),
    leaving=False,
    joined=None,
    ready=False,
    failure=None,
    waits_for="InfrastructureReady False",
)


def test_what_a_pool_says_is_read() -> None:
    spec = {"pool": "quebec", "machine": {"address": "192.0.2.1", "sshKeyRef": {"name": "ssh"}}}
    found: dict[str, Any] = {"metadata": {"name": "quebec-a"}, "spec": spec}
    assert pooled(found) == A
    found["status"] = {"reserved": True, "machineRef": {"name": "w-1", "namespace": "n"}}
    found["metadata"]["annotations"] = {UNREACHABLE: "no answer"}
    assert pooled(found) == replace(HAS_A, unreachable="no answer")
    found["status"] = {"reserved": False, "machineRef": {"name": "", "namespace": ""}}
    assert pooled(found).taken_by is None


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ({}, MAKING),
        ({"status": {"ready": True}}, MADE),
        ({"status": {"initialization": {"provisioned": True}}}, MADE),
        ({"spec": {"pool": "quebec", "providerID": "remote-machine://h:22"}}, MADE),
        ({"status": {"failureReason": "ProvisionFailed", "failureMessage": "no answer"}}, FAILING),
        (
            {
                "status": {
                    "deprecated": {"v1beta1": {"failureReason": "ProvisionFailed", "failureMessage": "no answer"}}
                }
            },
            FAILING,
        ),
        (
            {"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "Dial", "message": "no"}]}},
            replace(MAKING, failure="Ready False (Dial: no)"),
        ),
    ],
)
def test_a_remote_machine_is_read_alike_in_both_contracts(said: dict[str, Any], read: Remote) -> None:
    owner = {"kind": "Machine", "name": "w-1"}
    metadata = {"name": "w-1", "labels": {"windfall.dev/lease": "x"}, "ownerReferences": [owner]}
    assert remote({"metadata": metadata, "spec": {"pool": "quebec"}, **said}) == read


@pytest.mark.parametrize(
    ("machines", "remotes", "places_"),
    [
        ((A, B), (), [Place("quebec"), Place("quebec")]),
        # While somebody has it, it stays: k0smotron would take another one in its place.
        ((HAS_A, B), (FAILING,), [Place("quebec", FAILING.failure), Place("quebec")]),
        (
            (HAS_A, B),
            (replace(FAILING, leaving=True),),
            [Place("quebec-unreachable", FAILING.failure), Place("quebec")],
        ),
        # What it was said to be outlives who tried it.
        ((replace(A, unreachable="no"), B), (), [Place("quebec-unreachable", "no"), Place("quebec")]),
        # With no other one free it is tried again.
        ((replace(A, unreachable="no"),), (), [Place("quebec", "no")]),
        ((replace(A, unreachable="no"), replace(B, taken_by="w-2")), (), [Place("quebec", "no"), Place("quebec")]),
        ((replace(A, unreachable="no"), replace(B, unreachable="no")), (), [Place("quebec", "no")] * 2),
        # Once it has been made a node of, it is as good as the others.
        ((replace(HAS_A, unreachable="no"), B), (MADE,), [Place("quebec"), Place("quebec")]),
        # Somebody whom the watch does not show yet has it.
        ((replace(HAS_A, unreachable="no"), B), (), [Place("quebec", "no"), Place("quebec")]),
    ],
)
def test_a_machine_that_does_not_answer_goes_to_the_back(
    machines: tuple[Pooled, ...], remotes: tuple[Remote, ...], places_: list[Place]
) -> None:
    assert list(places("quebec", machines, remotes).values()) == places_


def test_a_machine_leaves_the_pool_with_the_settings_once_nobody_has_it() -> None:
    assert gone([A, B], ["quebec-a"]) == ["quebec-b"]
    assert gone([HAS_A, B], ["quebec-b"]) == []


@pytest.mark.parametrize(
    ("machines", "mine", "waits_for"),
    [
        ((), MAKING, "the pool quebec has no machines: name some as machines, or fill it"),
        (
            (replace(A, taken_by="w-2"), replace(B, taken_by="w-3")),
            MAKING,
            "the pool quebec is exhausted: all 2 of its machines are taken",
        ),
        ((A, B), MAKING, "k0smotron has not taken any of the 2 free machines of the pool quebec yet"),
        ((HAS_A,), MAKING, "quebec-a: InfrastructureReady False"),
        ((HAS_A,), FAILING, "quebec-a: ProvisionFailed: no answer"),
        ((HAS_A,), replace(FAILING, failure="dial 192.0.2.1:22"), "quebec-a: dial quebec-a:22"),
        ((), replace(FAILING, pool=""), "ProvisionFailed: no answer"),
        ((), replace(MADE, pool=""), "InfrastructureReady False"),
        ((), replace(MAKING, machine="another"), "InfrastructureReady False"),
    ],
)
def test_a_lease_says_what_the_pool_knows(machines: tuple[Pooled, ...], mine: Remote, waits_for: str) -> None:
    assert explained(MACHINE, machines, [mine]).waits_for == waits_for


def test_a_failure_says_where_and_a_ready_machine_nothing() -> None:
    failed = replace(MACHINE, failure="ProvisionFailed: no answer")
    assert explained(failed, [HAS_A], [FAILING]).failure == "quebec-a: ProvisionFailed: no answer"
    ready = replace(MACHINE, ready=True, joined="w-1", waits_for="")
    assert explained(ready, [HAS_A], [MADE]) == ready


def test_a_remote_machine_is_labelled_once_and_only_for_a_lease() -> None:
    unsaid = replace(MAKING, labelled=False)
    assert unlabelled([MACHINE], [unsaid]) == [(MACHINE, unsaid)]
    assert unlabelled([MACHINE], [MAKING]) == []
    assert unlabelled([replace(MACHINE, node=None)], [unsaid]) == []
    assert unlabelled([replace(MACHINE, leaving=True)], [unsaid]) == []
    assert unlabelled([MACHINE], [replace(unsaid, leaving=True)]) == []
