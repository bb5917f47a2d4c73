"""The coordinator's disk: what it keeps, what it refuses, and that a crash changes no bit."""

import hashlib
import json
import sys
from collections.abc import Callable
from itertools import permutations
from math import inf, nan
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from windfall.federation_coordinator.checks import Refusal
from windfall.federation_coordinator.rounds import Contribution
from windfall.federation_coordinator.store import ModelStore
from windfall.lowcomm.codec import CODECS
from windfall.lowcomm.layout import Layout, TensorSpec, digest, unflatten
from windfall.lowcomm.outer import parse_outer
from windfall.servicekit.errors import ExitCode, Mistake

LAYOUT = Layout((TensorSpec("embed", (50, 30)), TensorSpec("scale", ()), TensorSpec("head", (7, 11))))
OUTERS = ["average", "average:lr=0.5", "nesterov:lr=0.7,momentum=0.9"]


def flat(seed: int) -> Tensor:
    return torch.randn(LAYOUT.elements, generator=torch.Generator().manual_seed(seed))


def opened(folder: Path, outer: str = OUTERS[-1], codec: str = "fp32") -> ModelStore:
    store = ModelStore(folder, LAYOUT, parse_outer(outer), codec)
    store.initialise(flat(0))
    return store


def contribution(site: str, tokens: int, attempt: int = 1, codec: str = "fp32") -> Contribution:
    return Contribution(
        site=site,
        attempt=attempt,
        tokens=tokens,
        steps=1,
        loss_nats=1.0,
        bytes_up=1,
        partial=False,
        sha256="0" * 64,
        codec=codec,
    )


def receive(store: ModelStore, number: int, one: Contribution, gradient: Tensor) -> None:
    data = bytes(CODECS[one.codec].encode(gradient))
    incoming = store.incoming(number, *one.order)
    incoming.write(data)
    incoming.seal(hashlib.sha256(data).hexdigest(), store.contribution_path(number, *one.order))


THREE = [contribution("a", 100), contribution("b", 30), contribution("b", 7, attempt=2)]


# --- the merge --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outer", OUTERS)
def test_two_rounds_equal_the_plain_computation(outer: str, tmp_path: Path) -> None:
    store = opened(tmp_path, outer)
    optimizer = parse_outer(outer)
    state, base = optimizer.init(LAYOUT.elements), flat(0)
    for number in range(2):
        gradients = [flat(10 * number + index + 1) for index in range(len(THREE))]
        for one, gradient in zip(THREE, gradients, strict=True):
            receive(store, number, one, gradient)
        found = store.merge(number, THREE)

        mean = torch.zeros(LAYOUT.elements)
        for one, gradient in zip(THREE, gradients, strict=True):
            mean += gradient * (one.tokens / 137)
        state, base = optimizer.apply(state, base, mean)
        assert found == digest(base) == store.digest(number + 1)
        assert torch.equal(store.load(number + 1), base)


def test_the_order_of_arrival_changes_no_bit(tmp_path: Path) -> None:
    digests = set()
    for number, order in enumerate(permutations(range(3))):
        store = opened(tmp_path / str(number))
        for index in order:
            receive(store, 0, THREE[index], flat(index + 1))
        digests.add(store.merge(0, [THREE[index] for index in order]))
    assert len(digests) == 1


def test_each_contribution_is_read_in_the_codec_that_it_came_in(tmp_path: Path) -> None:
    exact = torch.arange(LAYOUT.elements).remainder(8).float()  # what bf16 keeps to the bit
    one, other = contribution("a", 1), contribution("b", 1, codec="bf16")
    store = opened(tmp_path, "average")
    receive(store, 0, one, exact)
    # The operator changed the codec and started the coordinator again.
    store = ModelStore(tmp_path, LAYOUT, parse_outer("average"), "bf16")
    receive(store, 0, other, exact)
    store.merge(0, [one, other])
    assert torch.equal(store.load(1), flat(0) - exact)


def test_a_base_is_a_safetensors_file(tmp_path: Path) -> None:
    store = opened(tmp_path)
    receive(store, 0, THREE[0], flat(1))
    store.merge(0, THREE[:1])
    read = load_file(store.base(1).path)
    expected = unflatten(store.load(1), LAYOUT)
    assert set(read) == set(expected)
    assert all(torch.equal(read[name], expected[name]) for name in expected)
    store.export(1, store.final)
    assert store.final.read_bytes() == store.base(1).path.read_bytes()


@pytest.fixture(scope="module")
def under_fire(tmp_path_factory: pytest.TempPathFactory) -> Any:
    script = Path(__file__).with_name("merge_under_fire.py")
    ended = run([sys.executable, script, tmp_path_factory.mktemp("fire")], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_killed_anywhere_in_a_merge_the_next_one_gives_the_same_bits(under_fire: Any) -> None:
    found = under_fire["killed"]
    assert len(found["digests"]) == 1
    # Three chunks; and six files opened, two renamed and a temporary removed for each, at the least.
    assert found["deaths"] >= 3 + 10
    assert not [name for name in found["left"] if name.endswith(".tmp")]


def test_a_merge_takes_less_room_than_the_model(under_fire: Any) -> None:
    assert under_fire["room"]["raised_bytes"] < under_fire["room"]["model_bytes"]


# --- what arrives -----------------------------------------------------------------------------------------------------

DATA = bytes(CODECS["fp32"].encode(flat(3)))
SHA = hashlib.sha256(DATA).hexdigest()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, LAYOUT.elements - 1), st.booleans(), st.integers(0, 3)), max_size=6))
def test_cut_and_resumed_equals_uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, bool, int]]
) -> None:
    folder = tmp_path_factory.mktemp("resumed")
    store = opened(folder)
    incoming = store.incoming(0, "a", 1)
    for element, cut, torn in sorted(cuts):
        incoming.write(DATA[incoming.received : 4 * element])
        if cut:
            incoming.pause()
            with (folder / "incoming-000000-a-1").open("ab") as file:
                # A crash tears what was being written: an element that is not whole is not gone on from.
                file.write(DATA[:torn])
            assert store.received(0, "a", 1) == 4 * element
            incoming = store.incoming(0, "a", 1)
            assert incoming.received == 4 * element
    incoming.write(DATA[incoming.received :])
    incoming.seal(SHA, store.contribution_path(0, "a", 1))
    assert store.contribution_path(0, "a", 1).read_bytes() == DATA


def test_sealed_but_never_accepted_it_need_not_be_sent_again(tmp_path: Path) -> None:
    store = opened(tmp_path)
    receive(store, 0, contribution("a", 1), flat(3))
    assert store.received(0, "a", 1) == len(DATA)
    incoming = store.incoming(0, "a", 1)
    assert incoming.received == len(DATA)
    incoming.seal(SHA, store.contribution_path(0, "a", 1))
    assert store.contribution_path(0, "a", 1).read_bytes() == DATA


def with_value(value: float) -> bytes:
    values = np.frombuffer(DATA, "<f4").copy()
    values[len(values) // 2] = value
    return values.tobytes()


WRONG: dict[str, tuple[bytes, str, str]] = {
    "NaN in the middle": (with_value(nan), "not-finite", "not finite"),
    "infinity in the middle": (with_value(-inf), "not-finite", "not finite"),
    "truncated": (DATA[:-4], "size", "not the declared"),
    "nothing at all": (b"", "size", "0 bytes arrived"),
    "too long": (DATA + DATA[:4], "size", "more than the declared"),
    "a torn element": (DATA[:-1], "size", "inside an element"),
    "other bytes than declared": (DATA[4:] + DATA[:4], "digest", "SHA-256"),
}


@pytest.mark.parametrize(("data", "reason", "detail"), WRONG.values(), ids=WRONG)
def test_refused_and_forgotten(data: bytes, reason: str, detail: str, tmp_path: Path) -> None:
    store = opened(tmp_path)
    before = sorted(tmp_path.iterdir())
    incoming = store.incoming(0, "a", 1)
    with pytest.raises(Refusal, match=detail) as refused:
        for start in range(0, len(data), 1000):
            incoming.write(data[start : start + 1000])
        incoming.seal(SHA, store.contribution_path(0, "a", 1))
    assert refused.value.reason == reason
    incoming.discard()
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("codec", CODECS)
def test_not_finite_in_every_codec(codec: str, tmp_path: Path) -> None:
    values = flat(1)
    values[5] = nan
    incoming = opened(tmp_path, codec=codec).incoming(0, "a", 1)
    with pytest.raises(Refusal):
        incoming.write(bytes(CODECS[codec].encode(values)))
    incoming.discard()


def test_a_part_of_another_codec_is_not_gone_on_from(tmp_path: Path) -> None:
    store = opened(tmp_path)
    incoming = store.incoming(0, "a", 1)
    incoming.write(DATA)
    incoming.pause()
    store = ModelStore(tmp_path, LAYOUT, parse_outer("average"), "bf16")
    assert store.received(0, "a", 1) == 0
    incoming = store.incoming(0, "a", 1)
    assert incoming.received == 0
    incoming.discard()


# --- what stays -------------------------------------------------------------------------------------------------------


def test_prune_keeps_what_a_crash_can_need(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for number in range(3):
        for one in THREE:
            receive(store, number, one, flat(number))
        store.incoming(number, "late", 1).pause()
        store.merge(number, THREE)
    store.export(3, store.final)
    store.incoming(3, "now", 1).pause()
    receive(store, 3, THREE[0], flat(9))
    store.prune(3)
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {
        "base-000002.safetensors",
        "base-000003.safetensors",
        "outer-000003-0.f32",
        "incoming-000003-now-1",
        "contribution-000003-a-1",
        "model.safetensors",
    }
    store.check(3, str(store.digest(3)))
    store.merge(3, THREE[:1])


def flip_a_bit(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 1
    path.write_bytes(damaged)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("name", "spoil", "cause"),
    [
        ("base-000000.safetensors", flip_a_bit, "damaged"),
        ("base-000000.safetensors", shorten, "damaged"),
        ("base-000000.safetensors", Path.unlink, "missing"),
        ("outer-000000-0.f32", shorten, "outer"),
        ("outer-000000-0.f32", Path.unlink, "outer"),
    ],
    ids=["a bit of the base", "the base is short", "no base", "the outer state is short", "no outer state"],
)
def test_damage_is_found_before_anything_starts(
    name: str, spoil: Callable[[Path], None], cause: str, tmp_path: Path
) -> None:
    store = opened(tmp_path)
    expected = str(store.digest(0))
    store.check(0, expected)
    spoil(tmp_path / name)
    with pytest.raises(Mistake, match=cause) as mistake:
        store.check(0, expected)
    assert mistake.value.exit_code is ExitCode.RESOURCE
    assert str(tmp_path) in mistake.value.cause


def test_initialised_twice_it_is_the_same(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert store.initialise(flat(0)) == store.digest(0) == digest(flat(0))


def test_a_pruned_base_is_not_there(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert store.digest(7) is None
    with pytest.raises(FileNotFoundError):
        store.load(7)


@pytest.mark.parametrize("missing", ["contribution-000000-a-1", "base-000000.safetensors", "outer-000000-0.f32"])
def test_a_merge_without_what_it_stands_on_is_a_mistake(missing: str, tmp_path: Path) -> None:
    store = opened(tmp_path)
    receive(store, 0, THREE[0], flat(1))
    (tmp_path / missing).unlink()
    with pytest.raises(Mistake, match=missing):
        store.merge(0, THREE[:1])
    assert not list(tmp_path.glob("*-000001*"))


def test_a_full_disk_is_a_mistake_that_names_it(tmp_path: Path) -> None:
    store = opened(tmp_path)
    receive(store, 0, THREE[0], flat(1))
    (tmp_path / "base-000001.safetensors.tmp").symlink_to("/dev/full")
    with pytest.raises(Mistake, match="is full; nothing that was accepted is lost") as mistake:
        store.merge(0, THREE[:1])
    assert mistake.value.exit_code is ExitCode.DISK_FULL
    # With room again, it is as if nothing had happened.
    expected = opened(tmp_path / "beside")
    receive(expected, 0, THREE[0], flat(1))
    assert store.merge(0, THREE[:1]) == expected.merge(0, THREE[:1])
