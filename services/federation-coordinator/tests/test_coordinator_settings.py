"""What a coordinator is told about its rounds, and what it refuses to be told."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from windfall.federation_coordinator.federation import Ends, Terms
from windfall.federation_coordinator.settings import CoordinatorSettings
from windfall.servicekit.errors import Mistake
from windfall.servicekit.settings import load

NEEDED = {"WINDFALL_NATS_URL": "nats://127.0.0.1:4222", "WINDFALL_STATE_DIR": "state"}


def told(**settings: str) -> CoordinatorSettings:
    return load(CoordinatorSettings, NEEDED | {f"WINDFALL_{name.upper()}": value for name, value in settings.items()})


def test_a_round_is_boxed_as_told_and_follows_the_links_when_nothing_is() -> None:
    assert told().follows_links
    assert not told(round_tokens="1000").follows_links
    policy = told(round_tokens="1000", minimum_sites="2", maximum_sites="3", straggler_limit="PT20M").policy
    assert (policy.tokens, policy.minimum, policy.maximum) == (1000, 2, 3)
    assert policy.straggler_limit == timedelta(minutes=20)


@pytest.mark.parametrize(
    ("codec", "alone_codec", "expected"),
    [("topk-ef", "", "int8-block"), ("int4-block", "", ""), ("topk-ef", "fp32", "fp32")],
)
def test_who_is_alone_says_all_that_it_learnt(codec: str, alone_codec: str, expected: str) -> None:
    assert told(codec=codec, alone_codec=alone_codec).policy.alone_codec == expected


def test_alone_can_be_turned_off() -> None:
    assert told().policy.alone == timedelta(minutes=30)
    assert told(alone="0").policy.alone is None


def test_ends(tmp_path: Path) -> None:
    ends = {"stop_tokens": "5", "stop_loss": "1.5", "stop_at": "2026-01-01T12:00:00Z", "stop_kg": "2"}
    policy = told(**ends, held_out_dir=str(tmp_path)).policy
    assert policy.ends == Ends(5, 1.5, datetime(2026, 1, 1, 12, tzinfo=UTC), 2.0)


@pytest.mark.parametrize(
    ("settings", "because"),
    [
        ({"canary": "0.1"}, "WINDFALL_CANARY need held-out data"),
        ({"stop_loss": "1"}, "WINDFALL_STOP_LOSS need held-out data"),
        ({"minimum_sites": "3", "maximum_sites": "2"}, "WINDFALL_MAXIMUM_SITES is below"),
        ({"alone_codec": "topk-ef"}, "WINDFALL_ALONE_CODEC is 'topk-ef'"),
        ({"rounds_late": "5"}, "less than or equal to 4"),
        ({"codec": "auto", "outer": "average"}, "WINDFALL_OUTER goes with a codec that is told"),
        ({"fragments": "some"}, "FRAGMENTS: input"),
        ({"site_settings": '{"a": {"micro_batch": 4}}'}, "WINDFALL_SITE_SETTINGS names a"),
        (
            {"sites": "a", "site_settings": '{"a": {"micro_batches": 4}}'},
            r"\(a.micro_batches\): extra inputs",
        ),
        (
            {"sites": "a", "site_settings": '{"a": {"local_steps": 4}}', "round_steps": "9"},
            "local_steps in WINDFALL_SITE",
        ),
        (
            {"sites": "a", "site_settings": '{"a": {"local_steps": 4}}', "site_steps": '{"a": 3}'},
            "both WINDFALL_SITE_STEPS",
        ),
        ({"stop_kg": "1", "objective": "carbon", "work_tokens": "1", "deadline": "2026-01-01T12:00:00Z"}, "BUDGET_KG"),
    ],
)
def test_refused_in_one_line(settings: dict[str, str], because: str) -> None:
    with pytest.raises(Mistake, match=because):
        told(**settings)


def test_steps_that_follow_speeds_may_be_told_on_average_and_for_single_sites() -> None:
    settings = told(sites="a,b", average_steps="40", site_steps='{"a": 7}')
    assert settings.follows_links
    assert (settings.policy.average_steps, settings.policy.site_steps) == (40, {"a": 7})


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"average_steps": "40", "round_steps": "30"}, "WINDFALL_AVERAGE_STEPS go without"),
        ({"sites": "b", "site_steps": '{"a": 7}'}, "names a, which WINDFALL_SITES does not"),
        ({"sites": "a", "site_steps": '{"a": 0}'}, "WINDFALL_SITE_STEPS"),
        ({"sites": "a", "site_steps": "seven"}, "not JSON"),
        ({"sites": "a", "merge": "median", "owner_share": "0.25"}, "median gives each site a vote"),
        ({"sites": "a", "owners": '{"b": "acme"}'}, "names b, which WINDFALL_SITES does not"),
        ({"lends": "lab:window.sold.a"}, "lends no fact"),
    ],
)
def test_what_cannot_be_heeded_is_refused(settings: dict[str, str], why: str) -> None:
    with pytest.raises(Mistake, match=why):
        told(**settings)


def test_codec_and_fragments_are_chosen_only_where_that_is_asked_for_and_it_is_known_who_named_them() -> None:
    plain, named, auto = told(), told(codec="topk-ef", fragments="2"), told(codec="auto", fragments="auto")
    assert (plain.wanted.codec, plain.wanted.codec_by, plain.wanted.open) == ("topk-ef", "default", False)
    assert (named.wanted.codec_by, named.wanted.fragments_by) == ("operator", "operator")
    assert auto.wanted.open and auto.rule.codec.name == "topk-ef"
    terms = Terms(codec="fp32", fragments=4, because="it fits")
    assert auto.rule_of(terms).codec.name == "fp32"
    # A site that was alone says all that it learnt in the federation's own codec where that is dense.
    assert (auto.policy.alone_codec, auto.policy_of(terms).alone_codec) == ("int8-block", "")


def test_what_is_wanted_of_sites_is_in_the_policy() -> None:
    policy = told(sites="a,b", site_settings='{"a": {"micro_batch": 4}}', precision="bf16", leave_out="false").policy
    assert policy.for_all.sites["a"].micro_batch == 4
    assert (policy.for_all.precision, policy.weighs, policy.excluded) == ("bf16", False, frozenset())
