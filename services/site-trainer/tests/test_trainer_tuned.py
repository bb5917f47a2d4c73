"""A site trains with what its profile recommends, unless somebody says otherwise."""

from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

from tests.trainer_field import BY_STEPS, MINUTE, NOON, SITES, Field, Make, Watched, play
from windfall.contracts.events import AdviceGiven, ContributionAccepted, NodeProfiled, RoundCompleted, TaskLearnt
from windfall.contracts.subjects import HUB
from windfall.federation_coordinator.choosing import ForSite
from windfall.site_trainer.coordinator import Membership
from windfall.site_trainer.engine import Engine
from windfall.site_trainer.tuning import Owner


class Tuned(Watched):
    """Keeps how it was tuned."""

    tunings: tuple[tuple[int, str], ...] = ()

    def tune(self, accumulation: int, precision: str) -> None:
        self.tunings = (*self.tunings, (accumulation, precision))


def test_each_site_trains_with_what_its_profile_recommends_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    """One operator's word and one owner's; the other values are as advised, and it is said whose word each is."""
    engines: dict[str, Tuned] = {}

    def make(site: str) -> Make:
        def made(membership: Membership) -> Engine:
            engines[site] = Tuned(membership.layout.elements, SITES.index(site) + 1, [])
            return engines[site]

        return made

    async def story(field: Field) -> None:
        for site in ("site-a", "site-b"):
            await field.tell(HUB, profiled(site))
        await field.sleep(MINUTE)
        nodes = [
            await field.start("site-a", make=make("site-a")),
            await field.start("site-b", make=make("site-b"), owner=Owner(accumulation=1)),
        ]
        await field.until(RoundCompleted, 2)
        assert engines["site-a"].tunings == ((4, "fp32"),)
        assert engines["site-b"].tunings == ((1, "bf16"),)
        tokens = {one.site: one.tokens // one.steps for one in field.events(ContributionAccepted)}
        assert tokens == {"site-a": 64 * 32, "site-b": 64 * 32}
        advice = field.events(AdviceGiven)[-1]
        values = {one.site: one.values["precision"] for one in advice.sites}
        assert (values["site-a"].used, values["site-a"].by, values["site-a"].advised) == ("fp32", "operator", "bf16")
        assert (values["site-b"].used, values["site-b"].by) == ("bf16", "advice")
        learnt = {(one.site, one.task) for one in field.events(TaskLearnt)}
        assert learnt == {("site-a", "toy"), ("site-b", "toy")}
        await field.drain(*nodes)

    play(story, Field(tmp_path, replace(BY_STEPS, sites={"site-a": ForSite(precision="fp32")})))


def profiled(site: str) -> NodeProfiled:
    return NodeProfiled.model_validate(
        {
            **{"id": uuid4(), "at": NOON, "site": site, "window_id": UUID(int=1), "lease_token": 1, "node": "n"},
            "measured": {"fingerprint": "f", "cpu_model": "m", "cpu_cores": 1, "memory_bytes": 1},
            "recommendation": {
                **{"micro_batch": 8, "gradient_accumulation": 4, "precision": "bf16", "local_steps": 9},
                "because": "it fits",
            },
        }
    )
