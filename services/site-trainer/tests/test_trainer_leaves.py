"""What leaves the site, and at which row it goes on."""

from itertools import pairwise
from pathlib import Path

from tests.trainer_field import BY_STEPS, MICRO_BATCH, MINUTE, SITES, Field, play
from windfall.contracts.events import ContributionAccepted, RoundCompleted
from windfall.contracts.subjects import EVENTS_STREAM
from windfall.federation_coordinator.app import Model
from windfall.lowcomm.layout import flatten, layout_of_model
from windfall.servicekit.errors import Mistake
from windfall.site_trainer.coordinator import Membership
from windfall.site_trainer.engine import Engine
from windfall.site_trainer.torch_engine import TorchEngine
from windfall.tasks.registry import load_task

DIARY = "Tuesday. Mrs Wren saw the heron again; it stood where the mill race bends & would not be counted. " * 30


def test_no_data_no_file_name_and_no_path_leaves_the_site(tmp_path: Path) -> None:
    settings = '{"width": 16, "layers": 1, "heads": 2, "context": 8, "rotary_pct": 0.5, "learning_rate": 0.003}'
    task = load_task("gpt-neox", settings)
    model = task.model(seed=0)
    layout = layout_of_model(model)
    first = flatten(model.state_dict(), layout)
    data_dir = tmp_path / "sovereign-archive" / "heronry"
    data_dir.mkdir(parents=True)
    (data_dir / "field-notebook.txt").write_text(DIARY)

    async def story(field: Field) -> None:
        node = await field.start(make=lambda membership: TorchEngine(task, membership.layout, data_dir, seed=3))
        await field.until(RoundCompleted, 2)
        await field.drain(node)
        broken = await field.start("site-b", make=no_engine_there)
        await broken.ended()
        await field.sleep(MINUTE)
        sent = [*node.link.sent, *broken.link.sent]
        said = [
            repr((letter.subject, letter.headers)).encode() + letter.body
            for site in SITES
            for letter in field.domains[site].letters(EVENTS_STREAM)
        ]
        assert len(sent) > 20
        # Both learnt what is trained, and one of them trained it.
        assert len(said) == 4
        wire = b"\0".join([*sent, *said])
        assert len(wire) > 2 * layout.nbytes
        for word in (*data_dir.parts[1:], "field-notebook", *tmp_path.parts[1:]):
            assert word.encode() not in wire, word
        text = DIARY.encode()
        for start in range(0, len(text) // 30 + 1):
            assert text[start : start + 8] not in wire

    def no_engine_there(membership: Membership) -> Engine:
        try:
            return TorchEngine(task, membership.layout, data_dir / "nothing", seed=3)
        except ValueError as error:
            raise Mistake(f"cannot train: {error}", "Mend the site's data") from error

    play(story, Field(tmp_path, BY_STEPS, layout, first=first, model=Model("gpt-neox", settings, layout)))


def test_a_site_that_comes_back_goes_on_at_its_cursor(tmp_path: Path) -> None:
    """Its data is its own: the coordinator hears how far it came, and only the site knows in what."""
    settings = '{"width": 16, "layers": 1, "heads": 2, "context": 8, "rotary_pct": 0.5, "learning_rate": 0.003}'
    task = load_task("gpt-neox", settings)
    model = task.model(seed=0)
    layout = layout_of_model(model)
    first = flatten(model.state_dict(), layout)
    (tmp_path / "notes.txt").write_text(DIARY)

    def make(membership: Membership) -> Engine:
        return TorchEngine(task, membership.layout, tmp_path, seed=3)

    async def story(field: Field) -> None:
        node = await field.start(make=make)
        await field.until(RoundCompleted, 2)
        await field.drain(node)
        before = field.events(ContributionAccepted)
        assert [one.cursor for one in before[:2]] == [5 * MICRO_BATCH, 10 * MICRO_BATCH]
        again = await field.start(token=2, make=make)
        await field.until(RoundCompleted, len(before) + 1)
        await field.drain(again)
        after = field.events(ContributionAccepted)[len(before) :]
        drawn = [one.steps * MICRO_BATCH for one in (before[-1], *after)]
        cursors = [one.cursor for one in (before[-1], *after)]
        assert [b - a for a, b in pairwise(cursors)] == drawn[1:], "no sample twice, and none left out"

    play(story, Field(tmp_path, BY_STEPS, layout, first=first, model=Model("gpt-neox", settings, layout)))
