"""Members of a group without a coordinator: their decisions, their files, and real groups on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from windfall.lowcomm.layout import Split
from windfall.lowcomm.rule import Rule
from windfall.servicekit.errors import Mistake
from windfall.servicekit.natsserver import free_port
from windfall.site_trainer.collective import boundary, holding
from windfall.site_trainer.collective.boundary import Held, Passed, agree, check_alike, local_steps
from windfall.site_trainer.collective.exchange import Group
from windfall.site_trainer.collective.settings import CollectiveSettings, read
from windfall.site_trainer.collective.stop import Stop, Stopped
from windfall.site_trainer.tensor_file import Unusable

TERMS = {"--codec": "topk-ef"}
REQUIRED = ("--site", "lyon", "--data-dir", "d", "--state-dir", "s", "--rounds", "3")


def held(site: str, number: int, digest: str = "a", terms: Mapping[str, str] = TERMS) -> Held:
    return Held(site=site, round=number, tokens=number, digest=digest * 64, terms=dict(terms))


# --- a group forms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "members, number, transfers",
    [
        ([held("a", 0), held("b", 0)], 0, ()),
        ([held("b", 0, "b"), held("a", 0, "a"), held("c", 0, "c")], 0, ((1, 0), (1, 2))),
        ([held("a", 7), held("b", 7), held("c", 7)], 7, ()),
        ([held("a", 6, "b"), held("b", 7), held("c", 7)], 7, ((1, 0),)),
        (
            [held("a", 0, "b"), held("b", 7), held("c", 6, "c"), held("d", 7), held("e", 0, "b")],
            7,
            ((1, 0), (3, 2), (1, 4)),
        ),
        ([held("a", 3)], 3, ()),
    ],
    ids=["fresh", "fresh-but-different", "together", "one-behind", "spread", "alone"],
)
def test_the_newest_boundary_counts_and_who_is_behind_receives_it(
    members: Sequence[Held], number: int, transfers: tuple[tuple[int, int], ...]
) -> None:
    start = agree(members)
    assert (start.round, start.tokens, start.transfers) == (number, number, transfers)
    assert start.digest == "a" * 64


@pytest.mark.parametrize(
    "members, line",
    [
        ([held("a", 7, "a"), held("b", 7, "b")], r"a and b hold different models of round 7 .*trained apart"),
        ([held("a", 7), held("a", 7)], r"2 members are called 'a'"),
        ([held("b", 7), held("a", 7, terms={"--codec": "fp32"})], r"a has --codec 'fp32', b has 'topk-ef'"),
        ([held("b", 7), held("a", 7, terms={})], r"a has --codec None, b has 'topk-ef'"),
    ],
    ids=["apart", "one-name", "other-codec", "unknown-term"],
)
def test_members_who_cannot_train_together_are_named(members: Sequence[Held], line: str) -> None:
    with pytest.raises(ValueError, match=line) as refused:
        agree(members)
    assert "\n" not in str(refused.value)


@given(rounds=st.lists(st.integers(0, 3), min_size=1, max_size=8), order=st.randoms())
def test_after_the_transfers_everyone_holds_the_same(rounds: list[int], order: Any) -> None:
    members = [held(f"s{index}", number, "abcd"[number]) for index, number in enumerate(rounds)]
    order.shuffle(members)
    start = agree(members)
    holds = [one.digest for one in members]
    for source, target in start.transfers:
        assert holds[source] == start.digest != holds[target]
        holds[target] = holds[source]
    assert set(holds) == {start.digest}
    assert start.round == max(rounds)


# --- a round ends -----------------------------------------------------------------------------------------------------


def spoken(rule: Rule, split: Split, seed: int, base_round: int = 0, tokens: int = 10) -> bytes:
    gradient = torch.randn(split.elements, generator=torch.Generator().manual_seed(seed))
    return rule.encode(rule.codec.init(split.trained), gradient, split, base=base_round, tokens=tokens, steps=2)[1]


@pytest.mark.parametrize("codec", ["topk-ef", "fp32", "int4-block", "q2-ef", "dct-momentum"])
def test_ranks_do_not_matter_and_silence_is_no_vote(codec: str) -> None:
    rule, split = Rule.parse(codec), Split(500, 3)
    before = holding.begin(rule, torch.ones(503), split)
    messages = {"a": spoken(rule, split, 1), "b": b"", "c": spoken(rule, split, 2, tokens=30)}
    reached = []
    for sites in (["a", "b", "c"], ["c", "a", "b"], ["c", "a"]):
        said, tokens = boundary.contributions(rule, split, 0, sites, [messages[site] for site in sites])
        reached.append(boundary.step(rule, split, before, said, tokens))
    assert len({one.digest for one in reached}) == 1
    assert (reached[0].round, reached[0].tokens) == (1, 40)
    assert not torch.equal(reached[0].base, before.base)


def test_where_nobody_says_anything_the_model_stays() -> None:
    rule, split = Rule.parse("topk-ef"), Split(5)
    before = holding.begin(rule, torch.ones(5), split)
    said, tokens = boundary.contributions(rule, split, 0, ["a", "b"], [b"", b""])
    after = boundary.step(rule, split, before, said, tokens)
    assert (after.round, after.tokens, after.model_digest) == (1, 0, before.model_digest)


@pytest.mark.parametrize(
    "message, line",
    [
        (b"hello", "what b said of round 1 cannot be read"),
        (spoken(Rule.parse("fp32"), Split(5), 1), "what b said of round 1 cannot be read: part 0 is fp32"),
        (spoken(Rule.parse("topk-ef"), Split(5), 1)[:-1], "what b said of round 1 cannot be read"),
        (
            spoken(Rule.parse("topk-ef"), Split(5), 1, base_round=4),
            "b speaks of 10 tokens from base 4, others of base 0",
        ),
    ],
    ids=["noise", "codec", "cut", "round"],
)
def test_what_cannot_be_read_names_its_site(message: bytes, line: str) -> None:
    rule, split = Rule.parse("topk-ef"), Split(5)
    with pytest.raises(ValueError, match=line):
        boundary.contributions(rule, split, 0, ["a", "b"], [spoken(rule, split, 1), message])


def test_a_member_that_differs_is_named() -> None:
    def passed(site: str, digest: str) -> Passed:
        return Passed(site=site, digest=digest * 64, steps_per_s=1.0)

    check_alike(3, [passed("a", "a"), passed("b", "a")])
    with pytest.raises(
        ValueError, match=r"^after round 3 b \(bbbbbbbbbbbb\) differs from the other members \(aaaaaaaaaaaa\)"
    ):
        check_alike(3, [passed("b", "b"), passed("a", "a"), passed("c", "a")])


@pytest.mark.parametrize(
    "own, speeds, steps",
    [(2.0, [2.0, 1.0], 50), (1.0, [2.0, 1.0], 25), (0.001, [2.0, 0.001], 1), (0.0, [2.0, 0.0], 50), (0.0, [], 50)],
    ids=["fastest", "half", "at-least-one", "unknown", "nobody"],
)
def test_steps_follow_speed(own: float, speeds: list[float], steps: int) -> None:
    assert local_steps(50, own, speeds) == steps


# --- on disk ----------------------------------------------------------------------------------------------------------


def test_a_holding_comes_back_as_it_was(tmp_path: Path) -> None:
    rule, split, path = Rule.parse("q2-ef"), Split(64, 2), tmp_path / "boundary"
    assert holding.load(path, TERMS) is None
    first = replace(holding.begin(rule, torch.randn(66), split), round=3, tokens=99, feedback=(torch.randn(64),))
    holding.save(first, path, TERMS)
    found = holding.load(path, TERMS)
    assert found is not None
    assert (found.round, found.tokens, found.digest) == (3, 99, first.digest)
    assert torch.equal(found.feedback[0], first.feedback[0])
    assert [each.name for each in tmp_path.iterdir()] == ["boundary"]


def test_a_file_that_cannot_be_gone_on_from_says_why(tmp_path: Path) -> None:
    path = tmp_path / "boundary"
    holding.save(holding.begin(Rule.parse("topk-ef"), torch.ones(64), Split(64)), path, TERMS)
    whole = path.read_bytes()
    with pytest.raises(Unusable, match="its --codec is 'topk-ef', not 'fp32'"):
        holding.load(path, {"--codec": "fp32"})
    path.write_bytes(whole[:-4])
    with pytest.raises(Unusable, match="not whole"):
        holding.load(path, TERMS)
    path.write_bytes(whole[:-1] + b"\x01")
    with pytest.raises(Unusable, match="SHA-256"):
        holding.load(path, TERMS)


# --- waiting for others -----------------------------------------------------------------------------------------------


@pytest.fixture
def stop() -> Iterator[Stop]:
    with Stop() as stop:
        yield stop


def test_a_signal_ends_a_wait_for_others(stop: Stop) -> None:
    others, begun = Event(), Event()

    def never() -> None:
        begun.set()
        others.wait()

    def ask() -> None:
        begun.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    assert stop.wait_for(lambda: 7) == 7
    Thread(target=ask).start()
    with pytest.raises(Stopped):
        stop.wait_for(never)
    others.set()


def test_a_signal_is_not_heard_inside_a_step(stop: Stop) -> None:
    stop.look()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped):
        stop.look()
    with pytest.raises(Stopped):
        stop.wait_for(lambda: 7)


# --- settings ---------------------------------------------------------------------------------------------------------


def test_the_command_line_counts_before_the_environment() -> None:
    settings = read([*REQUIRED, "--timeout", "90", "--clip"], {"WINDFALL_TIMEOUT": "PT5M", "WINDFALL_SEED": "7"})
    assert (settings.timeout.total_seconds(), settings.seed, settings.clip) == (90, 7, True)
    assert read(REQUIRED, {"WINDFALL_CLIP": "true", "WINDFALL_TIMEOUT": "PT5M"}).timeout.total_seconds() == 300


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["--site", "lyon"], "--data-dir: field required; --state-dir: field required"),
        ([*REQUIRED, "--steps", "0"], "--steps: input should be greater than or equal to 1"),
        (REQUIRED[:-2], "nothing says when to end: give --rounds, --tokens or both"),
        ([*REQUIRED, "--timeout", "-1"], "--timeout: must be positive, not -1 s"),
        ([*REQUIRED, "--backend", "mpi"], "--backend: input should be 'gloo' or 'nccl'"),
    ],
)
def test_every_mistake_is_in_one_line(arguments: Sequence[str], line: str) -> None:
    with pytest.raises(Mistake, match=line) as mistake:
        read(arguments, {})
    assert "\n" not in str(mistake.value)


def test_help_tells_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        read(["--help"], {})
    told = " ".join(capsys.readouterr().out.split())
    for name in CollectiveSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in told and f"WINDFALL_{name.upper()}" in told


# --- real groups ------------------------------------------------------------------------------------------------------

TASK = '{"width": 16, "layers": 1, "heads": 2, "context": 8, "rotary_pct": 0.5, "learning_rate": 0.01}'
PATIENT = pytest.mark.timeout(400)
"""Every process imports torch, and there are few cores."""


@dataclass
class Site:
    """A member, or the agent that starts it."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def lines(self) -> list[dict[str, Any]]:
        # The last line may still be on its way.
        return [json.loads(line) for line in (self.folder / "out").read_text().split("\n")[:-1]]

    @property
    def rounds(self) -> list[int]:
        return [line["round"] for line in self.lines]

    @property
    def rendezvous(self) -> int:
        return self.errors.count(f"{self.name} is rank")

    @property
    def errors(self) -> str:
        return (self.folder / "err").read_text()

    @property
    def worker(self) -> int:
        """The process that the agent started."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return next(
            int(each) for each in children if b"site_trainer.collective" in Path(f"/proc/{each}/cmdline").read_bytes()
        )

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Ground:
    """Where members meet: folders, text, and a port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.sites: list[Site] = []
        self._port = free_port()
        (folder / "text").mkdir()
        (folder / "text" / "verse.txt").write_text("the wind blows where it will; " * 40)

    def member(self, name: str, rank: int, size: int, *arguments: str) -> Site:
        """A member of a group of fixed size, as a launcher that is not elastic starts it."""
        return self._member(name, [sys.executable], self.environ(rank, size), arguments)

    def environ(self, rank: int, size: int) -> dict[str, str]:
        """What a launcher tells a member."""
        about = {"RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": size, "MASTER_PORT": self._port}
        return {key: str(value) for key, value in about.items()} | {"MASTER_ADDR": "127.0.0.1"}

    def agent(self, name: str, nodes: str, *arguments: str) -> Site:
        """A member under torchrun. The first agent keeps the rendezvous."""
        conf = f"is_host={int(not self.sites)},last_call_timeout=3,keep_alive_interval=1,keep_alive_max_attempt=10"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", nodes, "--nproc-per-node", "1"]
        torchrun += ["--max-restarts", "5", "--rdzv-backend", "c10d", "--rdzv-id", "t", "--rdzv-conf", conf]
        torchrun += ["--rdzv-endpoint", f"127.0.0.1:{self._port}", "--local-addr", "127.0.0.1"]
        return self._member(name, torchrun, {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}, arguments)

    def _member(self, name: str, launcher: list[str], environ: Mapping[str, str], arguments: Sequence[str]) -> Site:
        command = [*launcher, "-m", "windfall.site_trainer.collective", "--site", name, "--task-settings", TASK]
        command += ["--data-dir", str(self._folder / "text"), "--state-dir", str(self._folder / name / "state")]
        command += ["--timeout", "60", "--patience", "5", "--micro-batch", "2", *arguments]
        return self.start(name, command, environ)

    def start(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> Site:
        folder = self._folder / name
        folder.mkdir()
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=err,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environ},
                start_new_session=True,
            )
        self.sites.append(Site(name, folder, process))
        return self.sites[-1]

    def until(self, reached: Callable[[], bool]) -> None:
        """Look at what processes write until it is so; a process that ends before has failed."""
        while not reached():
            for site in self.sites:
                assert site.process.poll() in (None, 0), site.errors
            time.sleep(0.05)

    def finished(self, *sites: Site) -> list[dict[str, Any]]:
        """Wait for the end of every site: its last line. All have the same model."""
        for site in sites:
            assert site.process.wait() == 0, site.errors
        models = [(site.folder / "state" / "model.safetensors").read_bytes() for site in sites]
        assert len(set(models)) == 1
        last = [site.lines[-1] for site in sites]
        assert len({line["digest"] for line in last}) == 1
        return last


@pytest.fixture
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Ground]]:
    grounds: list[Ground] = []

    def another() -> Ground:
        grounds.append(Ground(tmp_path_factory.mktemp("ground")))
        return grounds[-1]

    yield another
    for each in grounds:
        for site in each.sites:
            site.kill()


TWO = """
import os
from datetime import timedelta
import torch
from windfall.site_trainer.collective.exchange import Group, PeerLost
group = Group.form("gloo", timedelta(seconds=30))
words = [b"", b"a" * 5000]
assert group.greet(words[group.rank], 5000) == (b"", b"a" * 5000)
assert group.all_gather(b"", 0) == (b"", b"")
try:
    group.all_gather(words[group.rank], 4999)
except ValueError as error:
    assert "rank 1 announces 5000 bytes" in str(error)
vectors = [torch.arange(5.0), torch.ones(0), torch.ones(1)]
if group.rank == 0:
    group.send(vectors, 1)
    os._exit(0)
arrived = [torch.zeros_like(each) for each in vectors]
group.receive(arrived, 0)
assert all(map(torch.equal, arrived, vectors))
try:
    group.all_gather(b"anyone?", 10)
except PeerLost as lost:
    assert str(lost) and "\\n" not in str(lost)
    print("alone", flush=True)
    # As a member ends: a thread of torch's may still wait for the one that is gone.
    os._exit(0)
"""


@PATIENT
def test_bytes_and_vectors_between_two(ground: Callable[[], Ground]) -> None:
    here = ground()
    two = [here.start(f"rank-{rank}", [sys.executable, "-c", TWO], here.environ(rank, 2)) for rank in range(2)]
    assert [site.process.wait() for site in two] == [0, 0], [site.errors for site in two]
    assert (two[1].folder / "out").read_text() == "alone\n"


@PATIENT
def test_three_members_arrive_at_one_model(ground: Callable[[], Ground]) -> None:
    here = ground()
    arguments = ("--steps", "10", "--rounds", "6", "--codec", "topk-ef:chunk=512,keep=64")
    members = [here.member(name, rank, 3, *arguments) for rank, name in enumerate(("c", "a", "b"))]
    last = here.finished(*members)
    for site in members:
        assert site.rounds == [1, 2, 3, 4, 5, 6]
        assert site.lines[-1]["loss_nats"] < 0.8 * site.lines[0]["loss_nats"]
        assert all(line["members"] == line["said"] == 3 and line["skipped"] == 0 for line in site.lines)
        assert all(0 < line["bytes_up"] < 3000 for line in site.lines)
    assert last[0]["tokens_of_all"] == 3 * 6 * 10 * 2 * 8
    model = load_file(members[0].folder / "state" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in model.values())


@PATIENT
@pytest.mark.slow
@pytest.mark.parametrize(
    "synchronisation",
    [("--codec", "topk-ef"), ("--codec", "bf16", "--outer", "nesterov:lr=0.7,momentum=0.6", "--clip")],
    ids=["topk-ef", "nesterov"],
)
def test_the_same_seeds_give_the_same_model_twice(
    ground: Callable[[], Ground], synchronisation: tuple[str, ...]
) -> None:
    digests = []
    for ranks in ((0, 1, 2), (2, 0, 1)):
        here = ground()
        arguments = ("--steps", "10", "--rounds", "4", "--save-every", "3", *synchronisation)
        members = [here.member(name, rank, 3, *arguments) for rank, name in zip(ranks, "abc", strict=True)]
        digests.append(here.finished(*members)[0]["digest"])
        assert members[0].lines[-1]["loss_nats"] < members[0].lines[0]["loss_nats"]
    assert digests[0] == digests[1]


@PATIENT
@pytest.mark.slow
@pytest.mark.parametrize("synchronisation", [("topk-ef", ""), ("int8-block", "nesterov")], ids=["topk-ef", "nesterov"])
def test_a_member_that_is_killed_costs_one_rendezvous(
    ground: Callable[[], Ground], synchronisation: tuple[str, str]
) -> None:
    here = ground()
    codec, outer = synchronisation
    arguments = ("--steps", "60", "--rounds", "14", "--codec", codec, "--outer", outer)
    sites = [here.agent(name, "3:3", *arguments) for name in "abc"]
    here.until(lambda: len(sites[0].rounds) >= 4)
    os.kill(sites[1].worker, signal.SIGKILL)
    here.finished(*sites)
    for site in sites:
        assert site.rendezvous == 2
        # A boundary that was passed is passed: no round is taken twice.
        assert sorted(set(site.rounds)) == site.rounds
        assert site.rounds[-1] == 14
    assert sites[0].rounds == sites[2].rounds == list(range(1, 15))


@PATIENT
@pytest.mark.slow
def test_a_member_that_joins_costs_one_rendezvous(ground: Callable[[], Ground]) -> None:
    here = ground()
    arguments = ("--steps", "60", "--rounds", "30", "--codec", "topk-ef")
    sites = [here.agent(name, "2:3", *arguments) for name in "bc"]
    here.until(lambda: len(sites[0].rounds) >= 3)
    late = here.agent("a", "2:3", *arguments)
    here.finished(*sites, late)
    assert [site.rendezvous for site in (*sites, late)] == [2, 2, 1]
    assert sites[0].rounds == sites[1].rounds == list(range(1, 31))
    assert late.rounds[0] > 3
    assert late.rounds == list(range(late.rounds[0], 31))
    assert [line["members"] for line in sites[0].lines] == [2 if each < late.rounds[0] else 3 for each in range(1, 31)]


@PATIENT
@pytest.mark.slow
def test_a_site_that_vanishes_leaves_the_others_at_work(ground: Callable[[], Ground]) -> None:
    here = ground()
    arguments = ("--steps", "60", "--rounds", "12", "--codec", "topk-ef")
    sites = [here.agent(name, "2:3", *arguments) for name in "abc"]
    here.until(lambda: len(sites[0].rounds) >= 3)
    os.kill(sites[2].worker, signal.SIGKILL)
    sites[2].kill()
    gone = here.sites.pop()
    here.finished(*sites[:2])
    assert gone.rounds[-1] < 12
    for site in sites[:2]:
        assert site.rounds == list(range(1, 13))
        assert site.lines[-1]["members"] == 2


# --- people's mistakes ------------------------------------------------------------------------------------------------


def test_a_group_is_formed_by_torchrun_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(Mistake, match="not started by torchrun"):
        Group.form("gloo", timedelta(seconds=1))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with pytest.raises(Mistake, match="Set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        Group.form("gloo", timedelta(seconds=1))


@PATIENT
def test_a_mistake_ends_a_member_with_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "windfall.site_trainer.collective", "--site", "a", "--rounds", "1"]
    command += ["--data-dir", str(tmp_path), "--state-dir", str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("windfall collective: cannot train: no *.txt")
    assert done.stderr.count("\n") == 1
