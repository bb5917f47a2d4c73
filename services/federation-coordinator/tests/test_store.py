"""The coordinator's disk: what it keeps, what it refuses, and that a crash changes no bit."""

import hashlib
import json
import struct
import sys
from collections.abc import Callable
from itertools import permutations
from math import inf, nan
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator import gradient
from windfall.federation_coordinator.checks import Refusal
from windfall.federation_coordinator.durable import DRAFT
from windfall.federation_coordinator.federation import Contribution
from windfall.federation_coordinator.outer_step import Step, take_step
from windfall.federation_coordinator.store import ModelStore
from windfall.federation_coordinator.wire import Frames
from windfall.lowcomm.layout import Layout, TensorSpec, digest, restore, unflatten
from windfall.lowcomm.outer import parse_outer
from windfall.lowcomm.outerlog import read, replay
from windfall.lowcomm.rule import Rule, Said
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.frames import unframed

LAYOUT = Layout(
    (
        TensorSpec("embed", (50, 30)),
        TensorSpec("scale", ()),
        TensorSpec("norm", (7, 11), "bfloat16"),
        TensorSpec("seen", (3,), "int64", exact=True),
    ),
    tied=(("head", "embed"),),
)
OUTERS = ["average", "average:lr=0.5", "nesterov:lr=0.7,momentum=0.9"]
RULES = {
    "fp32": Rule.parse("fp32", OUTERS[-1]),
    "bf16": Rule.parse("bf16"),
    "clipped fp32": Rule.parse("fp32", clip=True),
    "radial fp32": Rule.parse("fp32", merge="rda"),
    "topk-ef": Rule.parse("topk-ef"),
    "int4-block": Rule.parse("int4-block"),
    "dct-momentum": Rule.parse("dct-momentum"),
    "median fp32": Rule.parse("fp32", merge="median"),
    "trimmed bf16, clipped": Rule.parse("bf16", clip=True, merge="trimmed-mean:share=0.3"),
    "krum bf16": Rule.parse("bf16", merge="krum"),
    "multi-krum fp32, clipped": Rule.parse("fp32", clip=True, merge="multi-krum"),
    "delayed fp32": Rule.parse("fp32", "delayed-nesterov:arrivals=2"),
    "median topk-ef": Rule.parse("topk-ef", merge="median"),
    "multi-krum topk-ef": Rule.parse("topk-ef", merge="multi-krum"),
    "trimmed int8-block": Rule.parse("int8-block", merge="trimmed-mean"),
}
PLAIN = RULES["fp32"]


def flat(seed: int) -> Tensor:
    return torch.randn(LAYOUT.elements, generator=torch.Generator().manual_seed(seed))


def message(rule: Rule, seed: int, number: int = 0, tokens: int = 100) -> bytes:
    """What a site that has just joined says in a round."""
    state = rule.codec.init(LAYOUT.split.trained)
    return rule.encode(state, flat(seed), LAYOUT.split, base=number, tokens=tokens, steps=1)[1]


def opened(folder: Path, rule: Rule = PLAIN) -> ModelStore:
    store = ModelStore(folder, LAYOUT, rule)
    store.initialise(flat(0))
    return store


def contribution(site: str, tokens: int, attempt: int = 1, codec: str = "fp32", nbytes: int = 1) -> Contribution:
    return Contribution(
        site=site,
        attempt=attempt,
        base_round=0,
        tokens=tokens,
        steps=1,
        loss_nats=1.0,
        bytes_up=nbytes,
        partial=False,
        sha256="0" * 64,
        codec=codec,
    )


def receive(store: ModelStore, number: int, one: Contribution, seed: int) -> Contribution:
    """Take in what a site says under the store's rule, and give it as it was accepted."""
    data = message(store.rule, seed, number, one.tokens)
    incoming = store.incoming(number, one.site, one.attempt, len(data))
    incoming.write([data])
    sha256 = hashlib.sha256(data).hexdigest()
    incoming.seal(sha256, store.contribution_path(number, one.site, one.attempt))
    known = {"base_round": number, "bytes_up": len(data), "codec": store.rule.codec.name, "sha256": sha256}
    return one.model_copy(update=known)


def round_of(store: ModelStore, number: int) -> str:
    """A round of three contributions; the digest of the next base."""
    seeds = range(10 * number + 1, 10 * number + 4)
    return store.merge(number, [receive(store, number, one, seed) for one, seed in zip(THREE, seeds, strict=True)])


def stepped(rule: Rule, rounds: int) -> Tensor:
    """The model after so many rounds, by the library's own rule, in memory."""
    elements = LAYOUT.split
    state, base = rule.init(elements), flat(0)
    for number in range(rounds):
        said = [
            Said(one.site, one.attempt, one.tokens, rule.decode(message(rule, seed, number, one.tokens), elements)[1])
            for one, seed in zip(THREE, range(10 * number + 1, 10 * number + 4), strict=True)
        ]
        state, base = rule.step(state, base, rule.merge(said, elements), elements)
    return base


THREE = [contribution("a", 100), contribution("b", 30), contribution("b", 7, attempt=2)]


# --- the merge --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outer", OUTERS)
def test_two_rounds_equal_the_plain_computation(outer: str, tmp_path: Path) -> None:
    store = opened(tmp_path, Rule.parse("fp32", outer))
    optimizer, trained = parse_outer(outer), LAYOUT.split.trained
    state, base = optimizer.init(trained), flat(0)
    for number in range(2):
        found = round_of(store, number)

        mean = torch.zeros(LAYOUT.elements)
        for one, seed in zip(THREE, range(10 * number + 1, 10 * number + 4), strict=True):
            mean += flat(seed) * (one.tokens / 137)
        state, moved = optimizer.apply(state, base[:trained], mean[:trained])
        # Counters have no momentum: they are averaged.
        base = torch.cat((moved, base[trained:] - mean[trained:]))
        assert found == digest(base) == store.digest(number + 1)
        assert torch.equal(store.load(number + 1), base)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_three_rounds_on_disk_equal_the_rule_in_memory(rule: Rule, tmp_path: Path) -> None:
    store = opened(tmp_path, rule)
    for number in range(3):
        assert round_of(store, number) == store.digest(number + 1)
    assert torch.equal(store.load(3), stepped(rule, 3))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_order_of_arrival_changes_no_bit(rule: Rule, tmp_path: Path) -> None:
    digests = set()
    for number, order in enumerate(permutations(range(3))):
        store = opened(tmp_path / str(number), rule)
        digests.add(store.merge(0, [receive(store, 0, THREE[index], index + 1) for index in order]))
    assert len(digests) == 1


@pytest.mark.parametrize("merge", ["mean", "median", "trimmed-mean:share=0.2", "krum", "multi-krum:byzantine=1"])
@pytest.mark.parametrize("codec", ["fp32", "bf16", "int8-block", "topk-ef"])
def test_neither_cores_nor_the_length_of_a_run_change_a_bit(
    codec: str, merge: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = Rule.parse(codec, clip=merge != "mean", merge=merge)
    layout = Layout((TensorSpec("weights", (300_000,)), TensorSpec("seen", (5,), "int64", exact=True)))
    store = ModelStore(tmp_path, layout, rule)
    store.initialise(torch.zeros(layout.elements))
    said, ones, paths = [], [contribution(site, 10 + seed, codec=codec) for seed, site in enumerate("abcd")], []
    for seed, one in enumerate(ones):
        vector = torch.randn(layout.elements, generator=torch.Generator().manual_seed(seed))
        state = rule.codec.init(layout.split.trained)
        data = rule.encode(state, vector, layout.split, base=0, tokens=one.tokens, steps=1)[1]
        paths.append(store.contribution_path(0, one.site, one.attempt))
        paths[-1].write_bytes(data)
        said.append(Said(one.site, one.attempt, one.tokens, rule.decode(data, layout.split)[1]))
    merged = rule.merge(said, layout.split)
    expected = digest(rule.step(rule.init(layout.split), torch.zeros(layout.elements), merged, layout.split)[1])
    for cores, longest in ((1, 1 << 17), (2, 4096), (7, 1 << 16)):
        monkeypatch.setattr(gradient, "LONGEST_RUN", longest)
        after = tmp_path / str(cores)
        after.mkdir()
        place = Step(
            store.base(0),
            store.states(0),
            after / "base",
            [after / path.name for path in store.states(1)],
            b"",
        )
        assert take_step(place, rule, layout.split, ones, paths, cores) == expected


def test_a_contribution_that_was_cut_short_on_disk_is_a_mistake_and_no_model(tmp_path: Path) -> None:
    store = opened(tmp_path)
    one = receive(store, 0, contribution("a", 1), 1)
    path = store.contribution_path(0, one.site, one.attempt)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Mistake, match="contribution-000000-a-1' is shorter than the model"):
        store.merge(0, [one])
    assert store.digest(1) is None and not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("codec", ["bf16", "topk-ef"])
def test_each_contribution_is_read_in_the_codec_that_it_came_in(codec: str, tmp_path: Path) -> None:
    store = opened(tmp_path, Rule.parse("fp32", "average"))
    one = receive(store, 0, contribution("a", 1), 1)
    # The operator changed the codec and started the coordinator again.
    store = ModelStore(tmp_path, LAYOUT, Rule.parse(codec, "average"))
    other = receive(store, 0, contribution("b", 1), 2)
    store.merge(0, [one, other])
    (said, counted) = store.rule.decode(message(store.rule, 2, tokens=1), LAYOUT.split)[1]
    assert isinstance(counted, Tensor)
    dense = said if isinstance(said, Tensor) else said.dense()
    expected = flat(0) - (flat(1) * 0.5 + torch.cat((dense, counted)) * 0.5)
    torch.testing.assert_close(store.load(1), expected)


def test_a_base_is_a_safetensors_file(tmp_path: Path) -> None:
    store = opened(tmp_path)
    round_of(store, 0)
    read_back = load_file(store.base(1).path)
    expected = unflatten(store.load(1), LAYOUT)
    assert set(read_back) == set(expected) - {"head"}
    assert all(torch.equal(read_back[name], expected[name]) for name in read_back)


def test_the_last_model_has_every_name_of_the_model_in_its_own_type(tmp_path: Path) -> None:
    store = opened(tmp_path)
    round_of(store, 0)
    store.export(1, store.final)
    exported, expected = load_file(store.final), restore(store.load(1), LAYOUT)
    assert set(exported) == set(expected) == {"embed", "scale", "norm", "seen", "head"}
    assert {name: exported[name].dtype for name in ("norm", "seen")} == {"norm": torch.bfloat16, "seen": torch.int64}
    assert all(torch.equal(exported[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def under_fire(tmp_path_factory: pytest.TempPathFactory) -> Any:
    script = Path(__file__).with_name("merge_under_fire.py")
    ended = run([sys.executable, script, tmp_path_factory.mktemp("fire")], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("codec", ["fp32", "topk-ef", "int4-block"])
def test_killed_anywhere_in_a_merge_the_next_one_gives_the_same_bits(codec: str, under_fire: Any) -> None:
    found = under_fire["killed"][codec]
    assert len(found["digests"]) == 1
    # Files opened, renamed, and temporary ones removed; and for the codecs that go chunk by chunk, those chunks.
    assert found["deaths"] >= {"fp32": 3 + 10, "topk-ef": 10, "int4-block": 12}[codec]
    assert not [name for name in found["left"] if name.endswith(".tmp")]
    assert [name for name in found["left"] if name.startswith("log-")] == ([] if codec == "fp32" else ["log-000000"])


def test_a_merge_by_chunks_takes_less_room_than_the_model(under_fire: Any) -> None:
    assert under_fire["room"]["fp32"]["raised_bytes"] < under_fire["room"]["fp32"]["model_bytes"]


def test_a_merge_of_what_was_left_unsaid_takes_the_room_of_two_models_and_a_half(under_fire: Any) -> None:
    assert under_fire["room"]["topk-ef"]["raised_bytes"] < 2.5 * under_fire["room"]["topk-ef"]["model_bytes"]


# --- what arrives -----------------------------------------------------------------------------------------------------

DATA = message(PLAIN, 3)
SHA = hashlib.sha256(DATA).hexdigest()


@settings(deadline=None)
@given(st.sampled_from(sorted(RULES)), st.lists(st.tuples(st.integers(1, 6000), st.booleans()), max_size=6))
def test_cut_and_resumed_equals_uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, name: str, cuts: list[tuple[int, bool]]
) -> None:
    store, data = opened(tmp_path_factory.mktemp("resumed"), RULES[name]), message(RULES[name], 3)
    incoming = store.incoming(0, "a", 1, len(data))
    for end, cut in sorted(cuts):
        incoming.write([data[incoming.received : end]])
        if cut:
            incoming.pause()
            # A crash may tear an element, or a header: every byte that is there is gone on from.
            assert store.received(0, "a", 1) == incoming.received
            incoming = store.incoming(0, "a", 1, len(data))
            assert incoming.received == min(end, len(data))
    incoming.write([data[incoming.received :]])
    incoming.seal(hashlib.sha256(data).hexdigest(), store.contribution_path(0, "a", 1))
    assert store.contribution_path(0, "a", 1).read_bytes() == data


def test_sealed_but_never_accepted_it_need_not_be_sent_again(tmp_path: Path) -> None:
    store = opened(tmp_path)
    receive(store, 0, contribution("a", 100), 3)
    assert store.received(0, "a", 1) == len(DATA)
    incoming = store.incoming(0, "a", 1, len(DATA))
    assert incoming.received == len(DATA)
    incoming.seal(SHA, store.contribution_path(0, "a", 1))
    assert store.contribution_path(0, "a", 1).read_bytes() == DATA


WRONG: dict[str, tuple[bytes, str, str]] = {
    "truncated": (DATA[:-4], "size", "not the declared"),
    "nothing at all": (b"", "size", "0 bytes arrived"),
    "too long": (DATA + DATA[:4], "size", "more than the declared"),
    "a torn element": (DATA[:-1], "size", "not the declared"),
    "other bytes than declared": (DATA[4:] + DATA[:4], "digest", "SHA-256"),
}


@pytest.mark.parametrize(("data", "reason", "detail"), WRONG.values(), ids=WRONG)
def test_refused_and_forgotten(data: bytes, reason: str, detail: str, tmp_path: Path) -> None:
    store = opened(tmp_path)
    before = sorted(tmp_path.iterdir())
    incoming = store.incoming(0, "a", 1, len(DATA))
    with pytest.raises(Refusal, match=detail) as refused:
        for start in range(0, len(data), 1000):
            incoming.write([data[start : start + 1000]])
        incoming.seal(SHA, store.contribution_path(0, "a", 1))
    assert refused.value.reason == reason
    incoming.discard()
    assert sorted(tmp_path.iterdir()) == before


def manifest(data: bytes, **fields: int) -> pb.Manifest:
    values: dict[str, Any] = {"tokens": 100, "steps": 1, "total_bytes": len(data)} | fields
    return pb.Manifest(key=pb.ContributionKey(site="a", round=0, attempt=1), **values)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_sealed_it_is_read_to_its_end(rule: Rule, tmp_path: Path) -> None:
    store = opened(tmp_path, rule)
    data = message(rule, 3)
    receive(store, 0, contribution("a", 100), 3)
    store.look(0, "a", 1, manifest(data))
    path = store.contribution_path(0, "a", 1)
    with pytest.raises(Refusal) as refused:
        store.look(0, "a", 1, manifest(data, tokens=101))
    assert refused.value.reason == "tokens"
    for value in (nan, -inf):
        # The exact part, which every codec lets travel as it is.
        path.write_bytes(data[:-4] + struct.pack("<f", value))
        with pytest.raises(Refusal) as refused:
            store.look(0, "a", 1, manifest(data))
        assert refused.value.reason == "not-finite"
    path.unlink()
    with pytest.raises(Mistake, match=path.name):
        store.look(0, "a", 1, manifest(data))


def test_a_part_that_is_longer_than_declared_is_begun_anew(tmp_path: Path) -> None:
    store = opened(tmp_path)
    incoming = store.incoming(0, "a", 1, len(DATA))
    incoming.write([DATA])
    incoming.pause()
    # What the site says now is shorter: the operator changed the codec, and the site learnt it.
    store = ModelStore(tmp_path, LAYOUT, RULES["topk-ef"])
    short = message(store.rule, 3)
    incoming = store.incoming(0, "a", 1, len(short))
    assert (incoming.received, store.received(0, "a", 1)) == (0, 0)
    incoming.discard()


# --- what stays -------------------------------------------------------------------------------------------------------


def test_prune_keeps_what_a_crash_can_need(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for number in range(3):
        store.incoming(number, "late", 1, 7).pause()
        round_of(store, number)
    store.export(3, store.final)
    store.incoming(3, "now", 1, 7).pause()
    receive(store, 3, THREE[0], 9)
    # One is late and waits, one led from the previous base to this one.
    store.sweep(3, [("b", 1, 1), ("a", 1, 2)])
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {
        "base-000002.safetensors",
        "base-000003.safetensors",
        "outer-000002-0.f32",
        "outer-000003-0.f32",
        "incoming-000000-late-1",
        "incoming-000001-late-1",
        "incoming-000002-late-1",
        "incoming-000003-now-1",
        "contribution-000002-a-1",
        "contribution-000001-b-1",
        "contribution-000003-a-1",
        "model.safetensors",
    }
    store.check(3, str(store.digest(3)))
    store.merge(3, [THREE[0].model_copy(update={"base_round": 3})])


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
    receive(store, 0, THREE[0], 1)
    (tmp_path / missing).unlink()
    with pytest.raises(Mistake, match=missing):
        store.merge(0, THREE[:1])
    assert not list(tmp_path.glob("*-000001*"))


def test_a_full_disk_is_a_mistake_that_names_it(tmp_path: Path) -> None:
    store = opened(tmp_path)
    receive(store, 0, THREE[0], 1)
    (tmp_path / f"base-000001.safetensors{DRAFT}").symlink_to("/dev/full")
    with pytest.raises(Mistake, match="is full; nothing that was accepted is lost") as mistake:
        store.merge(0, THREE[:1])
    assert mistake.value.exit_code is ExitCode.DISK_FULL
    # With room again, it is as if nothing had happened.
    expected = opened(tmp_path / "beside")
    receive(expected, 0, THREE[0], 1)
    assert store.merge(0, THREE[:1]) == expected.merge(0, THREE[:1])


# --- the outer log ----------------------------------------------------------------------------------------------------


def logged(store: ModelStore, held: str, wanted: str, own: str) -> bytes | None:
    """The log as it goes down."""
    found = store.log(held, wanted, own)
    return None if found is None else b"".join(unframed(1, frame) or b"" for frame, _ in Frames().of(found, 0))


FOLLOWED = ["topk-ef", "int4-block", "dct-momentum"]


def recorded(folder: Path, rule: Rule, rounds: int) -> tuple[ModelStore, list[str]]:
    """A store after so many rounds, each of which was pruned, and the digests of its bases."""
    store = opened(folder, rule)
    digests = [str(store.digest(0))]
    for number in range(rounds):
        digests.append(round_of(store, number))
        store.prune(number + 1, [(one.site, one.attempt, number) for one in THREE])
    return store, digests


@pytest.mark.parametrize("codec", FOLLOWED)
def test_the_log_leads_from_a_base_to_the_next_without_the_receivers_own_message(codec: str, tmp_path: Path) -> None:
    rule, elements = RULES[codec], LAYOUT.split
    store, digests = recorded(tmp_path, rule, 1)
    own = message(rule, 1, 0, THREE[0].tokens)
    whole, short = (logged(store, digests[0], digests[1], sha) for sha in ("", hashlib.sha256(own).hexdigest()))
    assert whole is not None
    assert short is not None
    assert len(short) == len(whole) - len(own)
    for log, held in ((whole, {}), (short, {hashlib.sha256(own).hexdigest(): own})):
        _, base = replay(rule, elements, rule.init(elements), flat(0), read(log, elements), held)
        assert digest(base) == digests[1]


def test_the_log_goes_back_as_far_as_it_is_shorter_than_the_model(tmp_path: Path) -> None:
    rule, elements = RULES["topk-ef"], LAYOUT.split
    store, digests = recorded(tmp_path, rule, 12)
    found = [logged(store, held, digests[-1], "") for held in digests[:-1]]
    reaching = [log for log in found if log is not None]
    # Longer logs lead from further back, and none is longer than what it stands for.
    assert 2 <= len(reaching) < len(found)
    assert found == [None] * (len(found) - len(reaching)) + reaching
    assert [len(list(read(log, elements))) for log in reaching] == list(range(len(reaching), 0, -1))
    assert len(reaching[0]) < LAYOUT.nbytes
    for back, log in enumerate(reversed(reaching), start=1):
        _, base = replay(rule, elements, (), stepped(rule, 12 - back), read(log, elements))
        assert digest(base) == digests[-1]
    kept = sum(path.stat().st_size for path in tmp_path.glob("log-*"))
    assert kept <= LAYOUT.nbytes


def test_there_is_no_log_from_a_base_that_nobody_knows_nor_to_one_nor_backwards(tmp_path: Path) -> None:
    store, digests = recorded(tmp_path, RULES["topk-ef"], 3)
    for held, wanted in (
        ("f" * 64, digests[3]),
        ("", digests[3]),
        (digests[0], "f" * 64),
        (digests[3], digests[2]),
        (digests[3], digests[3]),
    ):
        assert logged(store, held, wanted, "") is None


def test_a_codec_that_says_as_much_as_the_model_has_no_log(tmp_path: Path) -> None:
    store, digests = recorded(tmp_path, PLAIN, 2)
    assert logged(store, digests[1], digests[2], "") is None
    assert not list(tmp_path.glob("log-*"))


@pytest.mark.parametrize("spoil", [flip_a_bit, shorten, Path.unlink], ids=["a bit", "short", "gone"])
def test_a_log_that_is_damaged_is_no_log(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    store, digests = recorded(tmp_path, RULES["topk-ef"], 3)
    assert logged(store, digests[1], digests[3], "") is not None
    spoil(tmp_path / "log-000001")
    found = logged(store, digests[1], digests[3], "")
    # A message is not looked at here: whoever replays it finds that its SHA-256 is another.
    assert (found is None) is (spoil is not flip_a_bit)
    assert logged(store, digests[2], digests[3], "") is not None


def test_a_round_that_is_longer_than_the_model_is_not_kept(tmp_path: Path) -> None:
    store = opened(tmp_path, RULES["int4-block"])
    many = [receive(store, 0, contribution(f"site-{number:02d}", 1), number) for number in range(20)]
    store.merge(0, many)
    assert sum(one.bytes_up for one in many) > 2 * LAYOUT.nbytes
    assert not list(tmp_path.glob("log-*"))


def test_started_again_under_another_rule_the_old_log_is_not_gone_on_from(tmp_path: Path) -> None:
    """Who trains under the new rule downloads a model first: what was said under the old one is not for it."""
    _, digests = recorded(tmp_path, RULES["topk-ef"], 2)
    store = ModelStore(tmp_path, LAYOUT, PLAIN.parse("int4-block", "average"))
    digests.append(round_of(store, 2))
    assert logged(store, digests[2], digests[3], "") is not None
    store = ModelStore(tmp_path, LAYOUT, Rule.parse("fp32", "average"))
    assert logged(store, digests[2], digests[3], "") is None
