"""A disk that lost bits, blocks or files: what is made again, what is gone on without, and what a person must mend."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from torch import Tensor

from windfall.contracts.envelope import unseal
from windfall.contracts.events import CheckpointDamaged, RoundStarted, SiteLeft
from windfall.contracts.message import Message
from windfall.federation_coordinator import membership, rounds
from windfall.federation_coordinator.checkpoints import KEY, Checkpoint, Kept, left_out, stepped
from windfall.federation_coordinator.damage import checksum
from windfall.federation_coordinator.federation import Contribution, Federation, Phase, Policy
from windfall.federation_coordinator.recovery import recover
from windfall.federation_coordinator.store import ModelStore
from windfall.lowcomm.layout import Layout, TensorSpec, digest
from windfall.lowcomm.rule import Rule
from windfall.servicekit.errors import Mistake
from windfall.servicekit.journal import Journal

LAYOUT = Layout((TensorSpec("embed", (50, 30)), TensorSpec("seen", (3,), "int64", exact=True)))
RULES = {"fp32": Rule.parse("fp32", "nesterov:lr=0.7,momentum=0.9"), "topk-ef": Rule.parse("topk-ef")}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy(timedelta(hours=1), None, timedelta(minutes=5), None)
TOKENS = {"site-a": 300, "site-b": 100}

every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def first() -> Tensor:
    return torch.randn(LAYOUT.elements, generator=torch.Generator().manual_seed(0))


@dataclass
class Place:
    """A coordinator's folder, as it is between two starts."""

    folder: Path
    rule: Rule
    state: Federation

    @property
    def store(self) -> ModelStore:
        return ModelStore(self.folder / "models", LAYOUT, self.rule)

    def journal(self) -> Journal:
        return Journal(self.folder / "journal.sqlite", "/test")

    def start(self) -> Federation:
        """What a start leaves in the journal, once what it makes again is whole."""
        journal = self.journal()
        try:
            recovered = recover(self.store, journal, first, NOW, POLICY)
            assert recovered.again is None or recovered.again()
            state = journal.load("federation", Federation)
            assert state is not None
            self.store.check(state.round, state.base_digest)
            return state
        finally:
            journal.close()

    def said(self, kind: type[Message]) -> list[Message]:
        journal = self.journal()
        try:
            return [one for waits in journal.unsaid() if isinstance(one := unseal(waits.letter), kind)]
        finally:
            journal.close()

    def path(self, name: str) -> Path:
        return self.folder / "models" / name


def contributed(store: ModelStore, number: int, site: str) -> Contribution:
    seed = 10 * number + sorted(TOKENS).index(site)
    gradient = torch.randn(LAYOUT.elements, generator=torch.Generator().manual_seed(seed))
    state = store.rule.codec.init(LAYOUT.split.trained)
    _, data = store.rule.encode(state, gradient, LAYOUT.split, base=number, tokens=TOKENS[site], steps=1)
    store.contribution_path(number, site, 1).write_bytes(data)
    return Contribution(
        site=site,
        attempt=1,
        base_round=number,
        tokens=TOKENS[site],
        steps=1,
        loss_nats=1.0,
        bytes_up=len(data),
        partial=False,
        sha256=hashlib.sha256(data).hexdigest(),
        codec=store.rule.codec.name,
    )


def after(folder: Path, rule: Rule, completed: int) -> Place:
    """The folder of a federation of two sites after so many rounds."""
    folder.mkdir(exist_ok=True)
    place = Place(folder, rule, Federation(name="demo", base_digest=digest(first())))
    journal, store, state = place.journal(), place.store, place.state
    recover(store, journal, first, NOW, POLICY)
    for site in TOKENS:
        state, _ = membership.join(state, site, uuid4(), 1, NOW, POLICY)
    for number in range(completed):
        for site in TOKENS:
            state, decision = rounds.accept(state, contributed(store, number, site), NOW, POLICY)
        assert decision.merge
        made = store.merge(number, state.contributions)
        now = Checkpoint(round=number + 1, digest=made, sums=store.sums(number + 1))
        before = journal.load(KEY, Kept)
        kept = stepped(before, now, state.contributions)
        state, _ = rounds.merged(state, made, 0, NOW, POLICY)
        journal.commit(state={"federation": state, KEY: kept})
        store.prune(state.round, [one.key for one in before.contributions] if before else ())
    journal.commit(state={"federation": state})
    journal.close()
    place.state = state
    return place


def flip_a_bit(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(damaged)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def blank_a_block(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[-512:] = bytes(512)
    path.write_bytes(damaged)


every_damage = pytest.mark.parametrize("spoil", [flip_a_bit, shorten, blank_a_block, Path.unlink])


# --- made again -------------------------------------------------------------------------------------------------------


@every_rule
@every_damage
@pytest.mark.parametrize("completed", [0, 1, 3])
def test_a_damaged_base_is_made_again_and_nothing_is_lost(
    completed: int, spoil: Callable[[Path], None], rule: Rule, tmp_path: Path
) -> None:
    place = after(tmp_path, rule, completed)
    spoil(place.path(f"base-{completed:06d}.safetensors"))
    assert place.start() == place.state
    (event,) = place.said(CheckpointDamaged)
    assert isinstance(event, CheckpointDamaged)
    assert (event.part, event.remedy, event.round) == ("base", "rebuilt", completed)
    assert (event.base_digest, event.rounds_lost, event.tokens_lost) == (place.state.base_digest, 0, 0)
    assert place.start() == place.state
    assert len(place.said(CheckpointDamaged)) == 1


@every_damage
@pytest.mark.parametrize("completed", [0, 2])
def test_a_damaged_outer_state_is_made_again(completed: int, spoil: Callable[[Path], None], tmp_path: Path) -> None:
    place = after(tmp_path, RULES["fp32"], completed)
    if completed == 0 and spoil is blank_a_block:
        pytest.skip("a new state is blank")
    path = place.path(f"outer-{completed:06d}-0.f32")
    before = path.read_bytes()
    spoil(path)
    assert place.start() == place.state
    assert path.read_bytes() == before
    (event,) = place.said(CheckpointDamaged)
    assert isinstance(event, CheckpointDamaged)
    assert (event.part, event.remedy) == ("outer-state", "rebuilt")


def test_damage_to_what_is_only_kept_for_repair_changes_nothing(tmp_path: Path) -> None:
    place = after(tmp_path, RULES["fp32"], 2)
    for name in ("base-000001.safetensors", "outer-000001-0.f32", "contribution-000001-site-a-1"):
        flip_a_bit(place.path(name))
    assert place.start() == place.state
    assert not place.said(CheckpointDamaged)


def test_what_a_crash_left_half_written_is_gone_after_a_start(tmp_path: Path) -> None:
    place = after(tmp_path, RULES["fp32"], 1)
    place.path("base-000002.safetensors.0badf00d.tmp").write_bytes(b"half")
    place.start()
    assert not list(place.path("").glob("*.tmp"))


# --- gone back --------------------------------------------------------------------------------------------------------


@every_rule
@pytest.mark.parametrize("also", ["contribution-000001-site-b-1"])
def test_a_base_that_cannot_be_made_again_is_gone_back_from_and_it_is_said_what_is_lost(
    also: str, rule: Rule, tmp_path: Path
) -> None:
    place = after(tmp_path, rule, 2)
    journal = place.journal()
    accepted = contributed(place.store, 2, "site-a")
    state, _ = rounds.accept(place.state, accepted, NOW, POLICY)
    journal.commit(state={"federation": state})
    journal.close()
    before = after(tmp_path / "beside", rule, 1).state
    flip_a_bit(place.path("base-000002.safetensors"))
    flip_a_bit(place.path(also))

    found = place.start()
    assert (found.round, found.base_digest, found.phase) == (3, before.base_digest, Phase.DARK)
    assert (found.members, found.contributions, found.tokens_total) == ({}, (), before.tokens_total)
    (event,) = place.said(CheckpointDamaged)
    assert isinstance(event, CheckpointDamaged)
    assert (event.remedy, event.rounds_lost, event.tokens_lost) == ("fell-back", 1, 400 + 300)
    assert event.base_digest == before.base_digest
    assert len(place.said(SiteLeft)) == 2
    # The next round is an ordinary one: it opens, merges, and is itself made again.
    assert place.start() == found
    joined, _ = membership.join(found, "site-a", uuid4(), 1, NOW, POLICY)
    assert (joined.phase, joined.round, joined.members["site-a"].attempt) == (Phase.RUNNING, 3, 2)
    store = place.store
    again = contributed(store, 3, "site-a")
    assert store.merge(3, [again]) != store.digest(3)


@pytest.mark.parametrize(
    "lost", [("base-000002.safetensors", "base-000001.safetensors"), ("outer-000002-0.f32", "outer-000001-0.f32")]
)
def test_when_nothing_is_left_a_person_is_told(lost: tuple[str, ...], tmp_path: Path) -> None:
    place = after(tmp_path, RULES["fp32"], 2)
    for name in lost:
        flip_a_bit(place.path(name))
    with pytest.raises(Mistake, match="damaged"):
        place.start()


def test_a_finished_federation_does_not_go_back_behind_the_model_that_it_handed_out(tmp_path: Path) -> None:
    place = after(tmp_path, RULES["fp32"], 2)
    journal = place.journal()
    journal.commit(state={"federation": place.state.model_copy(update={"phase": Phase.FINISHED})})
    journal.close()
    flip_a_bit(place.path("base-000002.safetensors"))
    place.path("contribution-000001-site-a-1").unlink()
    with pytest.raises(Mistake, match="damaged"):
        place.start()


def test_another_outer_optimizer_is_no_damage(tmp_path: Path) -> None:
    place = after(tmp_path, Rule.parse("fp32", "average"), 1)
    place.rule = RULES["fp32"]
    with pytest.raises(Mistake, match="WINDFALL_OUTER"):
        place.start()


def test_a_journal_that_knows_no_checkpoints_is_taken_at_its_word(tmp_path: Path) -> None:
    """As an older version wrote it."""
    place = after(tmp_path, RULES["fp32"], 1)
    place.path("").parent.joinpath("journal.sqlite").unlink()
    journal = place.journal()
    journal.commit(state={"federation": place.state})
    journal.close()
    assert place.start() == place.state
    flip_a_bit(place.path("outer-000001-0.f32"))
    with pytest.raises(Mistake, match="damaged"):
        place.start()


# --- left out ---------------------------------------------------------------------------------------------------------


def full(rule: Rule, folder: Path) -> tuple[ModelStore, Federation]:
    """A round that is about to be merged, after a restart."""
    place = after(folder, rule, 1)
    state, store = place.state, place.store
    for site in TOKENS:
        state, _ = rounds.accept(state, contributed(store, 1, site), NOW, POLICY)
    assert state.phase is Phase.MERGING
    return place.store, state


@every_rule
@every_damage
def test_a_contribution_that_was_damaged_after_it_was_accepted_is_left_out(
    spoil: Callable[[Path], None], rule: Rule, tmp_path: Path
) -> None:
    store, state = full(rule, tmp_path)
    assert store.unmergeable(state.contributions) == ()
    spoil(store.contribution_path(1, "site-a", 1))
    damaged = store.unmergeable(state.contributions)
    assert [one.site for one in damaged] == ["site-a"]
    left, decision = left_out(state, damaged, NOW, POLICY)
    assert (left.phase, decision.merge) == (Phase.MERGING, True)
    assert [one.site for one in left.contributions] == ["site-b"]
    (event,) = decision.say
    assert isinstance(event, CheckpointDamaged)
    assert (event.remedy, event.contributor, event.tokens_lost) == ("left-out", "site-a", 300)
    # Whoever sends it again is heard, and what is there counts once.
    assert not rounds.accepted(left, 1, "site-a", 1)
    assert rounds.accepted(left, 1, "site-b", 1)
    beside = after(tmp_path / "beside", rule, 1).store
    assert store.merge(1, left.contributions) == beside.merge(1, [contributed(beside, 1, "site-b")])


def test_when_every_contribution_is_damaged_the_round_opens_again_for_those_who_join_anew(tmp_path: Path) -> None:
    store, state = full(RULES["topk-ef"], tmp_path)
    for site in TOKENS:
        store.contribution_path(1, site, 1).unlink()
    left, decision = left_out(state, store.unmergeable(state.contributions), NOW, POLICY)
    assert not decision.merge
    assert (left.phase, left.round, left.base_digest, left.members) == (Phase.DARK, 1, state.base_digest, {})
    assert [type(one) for one in decision.say] == [CheckpointDamaged] * 2 + [SiteLeft] * 2
    joined, opened = membership.join(left, "site-a", uuid4(), 1, NOW, POLICY)
    assert (joined.phase, joined.round, joined.members["site-a"].attempt) == (Phase.RUNNING, 1, 2)
    assert [one.round for one in opened.say if isinstance(one, RoundStarted)] == [1]


# --- sums -------------------------------------------------------------------------------------------------------------


def test_a_checksum_finds_what_disks_do(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = torch.randn(700_001, generator=torch.Generator().manual_seed(1)).numpy().tobytes()
    path.write_bytes(data)
    whole = checksum(path)
    mib = 1024 * 1024
    for other in (data[:-4], data + bytes(8), data[mib : 2 * mib] + data[:mib] + data[2 * mib :], bytes(len(data))):
        path.write_bytes(other)
        assert checksum(path) != whole
    for place in range(0, len(data), 99_991):
        path.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        assert checksum(path) != whole
    path.unlink()
    assert checksum(path) == ""


# --- killed while it mends --------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone: nothing above it does anything."""


@pytest.mark.parametrize(
    ("at", "also"),
    [
        ("rebuild.planned", ()),
        ("rebuild.done", ()),
        ("fallback.laid", ("contribution-000001-site-b-1",)),
    ],
)
def test_killed_while_it_mends_the_next_start_comes_to_the_same_end_and_says_it_once(
    at: str, also: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, place = after(tmp_path / "beside", RULES["fp32"], 2), after(tmp_path / "killed", RULES["fp32"], 2)
    for each in (beside, place):
        for name in ("base-000002.safetensors", *also):
            flip_a_bit(each.path(name))
    expected = beside.start()

    def reach(name: str) -> None:
        if name == at:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("windfall.federation_coordinator.recovery.reach", reach)
        with pytest.raises(Killed):
            place.start()
    found = place.start()
    assert (found.round, found.base_digest, found.tokens_total) == (
        expected.round,
        expected.base_digest,
        expected.tokens_total,
    )
    assert len(place.said(CheckpointDamaged)) == 1
