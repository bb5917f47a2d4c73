"""How contributions are written is chosen before the first round, and then holds."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

from tests.training_field import LONG, NOT_FOUND, SITES, Place, standing
from windfall.contracts.envelope import seal
from windfall.contracts.events import AdviceGiven, NodeProfiled, RoundStarted
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.beginning import PROVISIONAL, Wanted
from windfall.lowcomm.rule import Rule
from windfall.servicekit.clock import SystemClock


def profile(site: str) -> NodeProfiled:
    return NodeProfiled.model_validate(
        {
            **{"id": uuid4(), "at": SystemClock().now(), "site": site, "window_id": UUID(int=5), "lease_token": 1},
            "node": "n",
            "measured": {
                **{"fingerprint": "f", "cpu_model": "m", "cpu_cores": 1, "memory_bytes": 1, "link_rtt_ms": 0.01},
                **{"step_s_by_micro_batch": {"4": 0.001}, "link_up_mb_per_s": 1e5, "link_down_mb_per_s": 1e5},
            },
            "recommendation": {
                **{"micro_batch": 4, "gradient_accumulation": 2, "local_steps": 9, "precision": "bf16"},
                "because": "it fits",
            },
        }
    )


async def test_nothing_opens_before_the_terms_are_chosen_and_then_they_hold(kind: str, tmp_path: Path) -> None:
    wanted, rule = Wanted(None, None), Rule.parse(PROVISIONAL)
    policy = replace(LONG, minimum=2)
    place = Place(kind, tmp_path, policy, rule=rule, wanted=wanted)
    async with standing(place):
        sites = [await place.join(name) for name in SITES]
        async with sites[0].listening(), sites[1].listening():
            for name in SITES:
                place.domain.store(seal(profile(name), "/test"))
            # Who joined before learns them by joining again: nothing was opened meanwhile.
            assert [await site.word() for site in sites] == [NOT_FOUND, NOT_FOUND]
        assert not await place.said(RoundStarted)
        reply = await place.stub.Join(
            pb.JoinRequest(
                federation="demo", site="site-a", window_id=str(UUID(int=5)), lease_token=1, protocol=1, fragments=True
            )
        )
        assert reply.codec == "fp32" == place.coordinator.store.rule.codec.name
        terms = place.coordinator.state.terms
        assert terms is not None and terms.measured and terms.fragments == reply.fragments
        assert place.coordinator.state.fragments == reply.fragments
        other = await place.join("site-b")
        async with other.listening():
            opened = await other.opened()
            # A site's own values follow its profile.
            assert (opened.micro_batch, opened.accumulation, opened.precision) == (8, 2, "bf16")
        (advice,) = await place.said(AdviceGiven, 1)
        assert (advice.codec.used, advice.codec.by, advice.fragments.by) == ("fp32", "advice", "advice")
    async with standing(Place(kind, tmp_path, policy, rule=rule, wanted=wanted)) as again:
        assert again.coordinator.store.rule.codec.name == "fp32"
        assert again.coordinator.state.terms == terms


async def test_a_choice_does_not_wait_for_ever(kind: str, tmp_path: Path) -> None:
    place = Place(
        kind, tmp_path, LONG, rule=Rule.parse(PROVISIONAL), wanted=Wanted(None, 1), patience=timedelta(seconds=0.05)
    )
    async with standing(place):
        site = await place.join("site-a")
        async with site.listening():
            await site.opened()
        terms = place.coordinator.state.terms
        assert terms is not None and (terms.codec, terms.measured) == (PROVISIONAL, False)
