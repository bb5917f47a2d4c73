"""A round for a fragment: what is merged, kept and said of it, and what stays as it is."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor

from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator import firewall
from windfall.federation_coordinator.checkpoints import KEY, Checkpoint, Kept
from windfall.federation_coordinator.checks import Refusal, check_manifest, described
from windfall.federation_coordinator.federation import Contribution, Federation, Member, Phase, Policy
from windfall.federation_coordinator.firewall import Firewall, Limits
from windfall.federation_coordinator.recovery import recover
from windfall.federation_coordinator.store import ModelStore
from windfall.federation_coordinator.wire import Frames
from windfall.lowcomm.fragments import CHUNK
from windfall.lowcomm.layout import FLOAT32_BYTES, Layout, TensorSpec, digest
from windfall.lowcomm.outerlog import read, replay
from windfall.lowcomm.rotation import Rotation
from windfall.lowcomm.rule import Rule, Said
from windfall.servicekit.frames import unframed
from windfall.servicekit.journal import Journal

LAYOUT = Layout((TensorSpec("embed", (3, CHUNK)), TensorSpec("head", (700,)), TensorSpec("seen", (3,), "int64", True)))
COUNT = 3
TURNS = Rotation(LAYOUT.split, COUNT)
RULES = {
    "fp32": Rule.parse("fp32", "nesterov:lr=0.7,momentum=0.9"),
    "bf16": Rule.parse("bf16", "average", clip=True),
    "topk-ef": Rule.parse("topk-ef"),
    "counted": Rule.parse("fp32", "delayed-nesterov:arrivals=2"),
    "median": Rule.parse("int8-block", "average", merge="median"),
}
TOKENS = {"a": 100, "b": 30, "c": 7}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy(timedelta(hours=1), None, timedelta(minutes=5), None)

every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def flat(seed: int) -> Tensor:
    return torch.randn(LAYOUT.elements, generator=torch.Generator().manual_seed(seed))


def said_in(rule: Rule, number: int) -> dict[str, bytes]:
    """What three sites that have just joined say of the fragment of a round."""
    split, part = TURNS.split(number), TURNS.part(number)
    return {
        site: rule.encode(
            rule.codec.init(split.trained), flat(10 * number + tokens)[part], split, base=number, tokens=tokens, steps=1
        )[1]
        for site, tokens in TOKENS.items()
    }


def receive(store: ModelStore, number: int) -> list[Contribution]:
    found = []
    for site, data in said_in(store.rule, number).items():
        key = pb.ContributionKey(federation="demo", site=site, round=number, attempt=1)
        incoming = store.incoming(number, site, 1, len(data))
        incoming.write([data])
        sha256 = hashlib.sha256(data).hexdigest()
        incoming.seal(sha256, store.contribution_path(number, site, 1))
        codec = store.rule.codec.name
        store.look(number, site, 1, pb.Manifest(key=key, tokens=TOKENS[site], steps=1, codec=codec))
        found.append(
            Contribution(
                site=site,
                attempt=1,
                base_round=number,
                tokens=TOKENS[site],
                steps=1,
                loss_nats=1.0,
                bytes_up=len(data),
                partial=False,
                sha256=sha256,
                codec=codec,
            )
        )
    return found


def opened(folder: Path, rule: Rule) -> ModelStore:
    store = ModelStore(folder, LAYOUT, rule, fragments=COUNT)
    store.initialise(flat(0))
    return store


@every_rule
def test_two_turns_of_each_on_disk_equal_the_rule_in_memory(rule: Rule, tmp_path: Path) -> None:
    store = opened(tmp_path, rule)
    states, base, digests = TURNS.init(rule.outer), flat(0), [digest(flat(0))]
    for number in range(2 * COUNT):
        found = store.merge(number, receive(store, number))
        split, before = TURNS.split(number), base
        said = [
            Said(site, 1, TOKENS[site], rule.decode(data, split)[1]) for site, data in said_in(rule, number).items()
        ]
        states, base = TURNS.step(rule, states, base, rule.merge(said, split), number)
        assert found == digest(base) == store.digest(number + 1)
        assert torch.equal(store.load(number + 1), base)
        moved = torch.zeros(LAYOUT.elements, dtype=torch.bool)
        moved[TURNS.part(number)] = True
        assert torch.equal(base[~moved], before[~moved]) and not torch.equal(base[moved], before[moved])
        raw = [path.read_bytes() for path in store.states(number + 1)]
        assert raw == [state.numpy().astype("<f4").tobytes() for state in states]
        digests.append(found)
    for held in range(2 * COUNT):
        # Also of dense codecs: a fragment of few sites is shorter than the model.
        stretches = store.log(digests[held], digests[-1], "")
        if stretches is not None:
            log = b"".join(unframed(1, frame) or b"" for frame, _ in Frames().of(stretches, 0))
            own, start = ModelStore(tmp_path, LAYOUT, rule, fragments=COUNT), store.load(held)
            kept = tuple(
                torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.float32) for path in own.states(held)
            )
            assert digest(replay(rule, TURNS, kept, start, read(log, TURNS))[1]) == digests[-1]
    assert store.log(digests[-2], digests[-1], "") is not None


@every_rule
def test_a_damaged_base_is_made_again_from_its_fragment(rule: Rule, tmp_path: Path) -> None:
    store, journal = opened(tmp_path / "models", rule), Journal(tmp_path / "journal.sqlite", "/test")
    for number in range(2):
        contributions = receive(store, number)
        found = store.merge(number, contributions)
        before, after = (
            Checkpoint(round=each, digest=store.digest(each) or "", sums=store.sums(each))
            for each in (number, number + 1)
        )
    state = Federation(name="demo", base_digest=found, round=2, fragments=COUNT)
    kept = Kept(current=after, previous=before, contributions=tuple(contributions))
    journal.commit(state={"federation": state, KEY: kept})
    store.base(2).path.write_bytes(b"nothing")
    for path in store.states(2):
        path.unlink()
    recovered = recover(store, journal, lambda: flat(0), NOW, POLICY)
    assert recovered.again is not None and recovered.again()
    assert recovered.digest == found == store.digest(2)
    assert store.sums(2) == after.sums
    journal.close()


def test_more_fragments_than_the_model_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="12988 elements make 1 to 4 fragments, not 5"):
        ModelStore(tmp_path, LAYOUT, RULES["fp32"], fragments=5)


def test_a_contribution_is_as_long_as_its_fragment_at_most(tmp_path: Path) -> None:
    rule = RULES["fp32"]
    state = Federation(
        name="demo",
        base_digest="0" * 64,
        round=4,
        phase=Phase.RUNNING,
        fragments=COUNT,
        members={"a": Member(site="a", attempt=1, lease_token=1, window_id="0" * 32, since=0)},
    )
    fine = pb.Manifest(
        key=pb.ContributionKey(federation="demo", site="a", round=4, attempt=1),
        lease_token=1,
        base_digest="0" * 64,
        codec="fp32",
        tokens=1,
        steps=1,
        total_bytes=rule.most_bytes(TURNS.split(4)),
        tensors=described(LAYOUT),
    )
    check_manifest(fine, state, POLICY, LAYOUT, rule)
    fine.total_bytes += 1
    with pytest.raises(Refusal, match="at most 16432 fit"):
        check_manifest(fine, state, POLICY, LAYOUT, rule)
    assert fine.total_bytes < FLOAT32_BYTES * LAYOUT.elements / 2


def test_what_is_said_of_the_whole_model_or_of_another_fragment_does_not_pass(tmp_path: Path) -> None:
    rule = RULES["topk-ef"]
    store = opened(tmp_path, rule)
    whole: Callable[[int], bytes] = lambda number: rule.encode(  # noqa: E731
        rule.codec.init(LAYOUT.split.trained), flat(1), LAYOUT.split, base=number, tokens=100, steps=1
    )[1]
    for number, data in ((0, whole(0)), (2, said_in(rule, 0)["a"]), (0, said_in(rule, 2)["a"])):
        path = store.contribution_path(number, "a", 1)
        path.write_bytes(data)
        key = pb.ContributionKey(federation="demo", site="a", round=number, attempt=1)
        with pytest.raises(Refusal):
            store.look(number, "a", 1, pb.Manifest(key=key, tokens=100, steps=1, codec="topk-ef"))


def test_norms_are_held_against_those_of_the_same_fragment() -> None:
    state, limits = Firewall(), Limits(norm_history=4)
    for number in range(400):
        norm = 100.0 if number % 2 else 1.0
        assert not firewall.too_long(state, norm, 1, limits, number % 2)
        state = firewall.accepted(state, "a", norm, 1, f"{number:064x}", number % 2)
    assert len(state.lengths) == 2 * 64
    assert firewall.too_long(state, 100.0, 1, limits, 0)
    assert not firewall.too_long(state, 100.0, 1, limits, 2)
