"""A site's policy: what it forbids, in one line, and what is wrong with it, in one line."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.v1 import training_pb2 as pb
from windfall.servicekit.errors import Mistake
from windfall.site_trainer.policy import (
    Offer,
    Privacy,
    Sent,
    SitePolicy,
    Told,
    admitted,
    before_join,
    before_pack,
    before_push,
    before_train,
    bucketed,
    counted,
    epsilon,
    on_day,
    on_the_way,
    telling,
    until_quiet,
)
from windfall.site_trainer.policy_file import read_policy

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OFFER = Offer("story", "hub.example.org", loopback=False, tls=True)
NOTHING = Sent(day=NOON.date())


def policy(**lines: object) -> SitePolicy:
    return SitePolicy.model_validate(lines)


@pytest.mark.parametrize(
    ("lines", "offer", "why"),
    [
        ({}, OFFER, ""),
        ({"federations": ["story"]}, OFFER, ""),
        ({"federations": ["other"]}, OFFER, "federations: story is none of other"),
        ({"federations": []}, OFFER, "federations: story is none of none"),
        ({"coordinators": ["hub.example.org"]}, OFFER, ""),
        ({"coordinators": ["other.example.org"]}, OFFER, "coordinators: this one is none of the 1 that may be joined"),
        (
            {"coordinators": ["hub.example.org"]},
            Offer("story", "hub.example.org", loopback=False, tls=False),
            "coordinators: without TLS nobody knows which one it is",
        ),
        ({"coordinators": ["127.0.0.1"]}, Offer("story", "127.0.0.1", loopback=True, tls=False), ""),
        ({"quiet": ["22:00-06:00"]}, OFFER, ""),
        ({"quiet": ["11:30-12:30"]}, OFFER, "quiet: nothing leaves from 11:30 to 12:30 UTC"),
        (
            {"quiet": ["06:00-08:00"], "zone": "America/Toronto"},
            OFFER,
            "quiet: nothing leaves from 06:00 to 08:00 America/Toronto",
        ),
        (
            {"most_contributions_per_day": 0},
            OFFER,
            "most_contributions_per_day: 0 have left today, at most 0 may",
        ),
    ],
)
def test_before_a_site_asks_to_join(lines: dict[str, object], offer: Offer, why: str) -> None:
    assert before_join(policy(**lines), offer, NOTHING, NOON) == why


@pytest.mark.parametrize(
    ("lines", "reply", "why"),
    [
        ({}, pb.JoinReply(task="toy"), ""),
        ({"tasks": ["gpt-neox"]}, pb.JoinReply(task="toy"), "tasks: 'toy' is none of gpt-neox"),
        ({"codecs": ["topk-ef"]}, pb.JoinReply(), ""),
        ({"codecs": ["bf16"]}, pb.JoinReply(), "codecs: 'topk-ef' is none of bf16"),
        (
            {"jurisdictions": ["CA"]},
            pb.JoinReply(),
            "jurisdictions: a coordinator that does not say where it lies is not within CA",
        ),
        ({"jurisdictions": ["CA"]}, pb.JoinReply(jurisdiction="CAN"), "jurisdictions: 'CAN' is not within CA"),
        (
            {"jurisdictions": ["CA"]},
            pb.JoinReply(jurisdiction="CA-QC"),
            "jurisdictions: the federation admits sites of any",
        ),
        (
            {"jurisdictions": ["CA"]},
            pb.JoinReply(jurisdiction="CA-QC", jurisdictions=["CA-QC", "US"]),
            "jurisdictions: the federation admits 'US', not within CA",
        ),
        ({"jurisdictions": ["CA"]}, pb.JoinReply(jurisdiction="CA", jurisdictions=["CA-QC", "CA-ON"]), ""),
        (
            {"jurisdictions": ["CA-QC"]},
            pb.JoinReply(jurisdiction="CA", jurisdictions=["CA-QC"]),
            "jurisdictions: 'CA' is not within CA-QC",
        ),
    ],
)
def test_before_a_site_trains(lines: dict[str, object], reply: pb.JoinReply, why: str) -> None:
    assert before_train(policy(**lines), reply, "topk-ef") == why


@pytest.mark.parametrize(("tokens", "counts"), [(0, (0, 0)), (99, (0, 0)), (100, (100, 7))])
def test_a_heartbeat_counts_no_few_samples(tokens: int, counts: tuple[int, int]) -> None:
    beat = pb.Beat(site="site-a", round=3, tokens=tokens, steps=7 if tokens else 0, state=pb.SITE_STATE_TRAINING)
    told = on_the_way(policy(least_tokens=100), beat)
    assert (told.tokens, told.steps) == counts
    assert (told.site, told.round, told.state) == ("site-a", 3, pb.SITE_STATE_TRAINING)


def manifest(tokens: int = 100, total_bytes: int = 50, sha256: str = "a") -> pb.Manifest:
    return pb.Manifest(tokens=tokens, total_bytes=total_bytes, sha256=sha256, codec="topk-ef")


@pytest.mark.parametrize(
    ("lines", "sent", "why"),
    [
        ({}, NOTHING, ""),
        ({"codecs": ["bf16"]}, NOTHING, "codecs: 'topk-ef' is none of bf16"),
        ({"least_tokens": 101}, NOTHING, "least_tokens: there are fewer than 101"),
        ({"quiet": ["11:00-13:00"]}, NOTHING, "quiet: nothing leaves from 11:00 to 13:00 UTC"),
        ({"most_bytes_per_day": 50}, NOTHING, ""),
        (
            {"most_bytes_per_day": 49},
            NOTHING,
            "most_bytes_per_day: 50 bytes and the 0 of today are more than 49",
        ),
        (
            {"most_contributions_per_day": 2},
            Sent(day=NOON.date(), contributions=2, last="b"),
            "most_contributions_per_day: 2 have left today, at most 2 may",
        ),
        ({"most_contributions_per_day": 2}, Sent(day=NOON.date(), contributions=2, last="a"), ""),
        ({"most_contributions_per_day": 2}, Sent(day=date(2025, 12, 31), contributions=2), ""),
        (
            {"most_contributions_per_day": 2},
            Sent(day=date(2026, 1, 2), contributions=2),
            "most_contributions_per_day: 2 have left today, at most 2 may",
        ),
    ],
)
def test_before_a_contribution_leaves(lines: dict[str, object], sent: Sent, why: str) -> None:
    assert before_push(policy(**lines), manifest(), sent, NOON) == why


def test_what_sets_out_again_is_counted_once() -> None:
    some = policy()
    once = counted(some, manifest(), NOTHING, NOON)
    assert once == Sent(day=NOON.date(), contributions=1, bytes=50, last="a")
    assert counted(some, manifest(), once, NOON) == once
    assert counted(some, manifest(sha256="b"), once, NOON).contributions == 2
    assert on_day(some, once, NOON + timedelta(days=1)) == Sent(day=date(2026, 1, 2))


@given(st.floats(-1e4, 1e4), st.floats(0.01, 10))
def test_a_loss_is_told_as_a_multiple_of_its_bucket(loss: float, bucket: float) -> None:
    told = bucketed(policy(loss_bucket=bucket), loss)
    assert abs(told - loss) <= bucket / 2 + 1e-5
    assert abs(told / bucket - round(told / bucket)) < 1e-3


@given(
    st.timedeltas(timedelta(0), timedelta(days=2000)),
    st.lists(st.sampled_from(["22:00-06:00", "11:30-12:30", "00:00-00:01", "23:59-00:00"]), min_size=1, max_size=3),
    st.sampled_from(["UTC", "America/Toronto", "Asia/Kolkata"]),
)
def test_quiet_hours_come_when_they_are_foreseen(later: timedelta, quiet: list[str], zone: str) -> None:
    some, now = policy(quiet=quiet, zone=zone), NOON + later
    ahead = until_quiet(some, now)
    assert ahead is not None and ahead <= timedelta(hours=25)
    if ahead:
        assert not before_join(some, OFFER, NOTHING, now)
        # But for the hours that a change of the clocks takes away or gives.
        if zone != "America/Toronto":
            assert until_quiet(some, now + ahead) == timedelta(0)
    else:
        assert before_join(some, OFFER, NOTHING, now).startswith("quiet: ")


def test_jurisdictions_are_asked_of_every_round() -> None:
    some = policy(jurisdictions=["CA"])
    assert admitted(some, ("CA-QC",)) == ""
    assert admitted(some, ("CA-QC", "\u202eCA")) != ""
    assert admitted(some, ()) == "jurisdictions: the federation admits sites of any"
    assert admitted(policy(), ()) == ""


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_policy_is_read_from_toml_and_json(tmp_path: Path) -> None:
    toml, json = tmp_path / "policy.toml", tmp_path / "policy.json"
    toml.write_text('federations = ["story"]\nquiet = ["22:00-06:00"]\nleast_tokens = 5000\n')
    json.write_text('{"federations": ["story"], "quiet": ["22:00-06:00"], "least_tokens": 5000}')
    assert (
        read_policy(toml)
        == read_policy(json)
        == policy(federations=["story"], quiet=["22:00-06:00"], least_tokens=5000)
    )
    assert read_policy(None) == SitePolicy()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("policy.toml", "federations = [", "is no TOML"),
        ("policy.json", "{", "is no JSON"),
        ("policy.json", "[" * 100_000, "is no JSON"),
        ("policy.json", "[]", "is wrong: policy: Input should be"),
        ("policy.toml", "federation = 1", "is wrong: federation: Extra inputs are not permitted"),
        ("policy.toml", 'quiet = ["10-11"]', "quiet.0: '10-11' is no span of a day like '22:00-06:00'"),
        ("policy.toml", 'quiet = ["25:00-26:00"]', "quiet.0: hour must be in 0..23"),
        ("policy.toml", 'zone = "Mars/Olympus"', "zone: there is no time zone 'Mars/Olympus'"),
        ("policy.toml", 'zone = "../../etc/passwd"', "zone: there is no time zone"),
        ("policy.toml", "loss_bucket = 0.001", "loss_bucket: Input should be greater than or equal to 0.01"),
        ("policy.toml", "loss_bucket = nan", "loss_bucket: Input should be a finite number"),
        ("policy.toml", 'jurisdiction = "Canada"', "jurisdiction: String should match pattern"),
        ("policy.toml", 'jurisdiction = "US"\njurisdictions = ["CA"]', "the site's own US is not within"),
        ("policy.toml", "least_tokens = 0\nmost_bytes_per_day = -1", "; most_bytes_per_day: "),
        ("policy.toml", "\udcff", "no text in UTF-8"),
        ("policy.toml", None, "cannot be read (No such file or directory)"),
    ],
)
def test_a_wrong_policy_is_one_line(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Mistake) as mistake:
        read_policy(path)
    assert said in str(mistake.value)
    assert "\n" not in str(mistake.value)


def test_a_privacy_budget_counts_every_contribution_and_says_what_one_more_would_make() -> None:
    some, told, count = policy(privacy={"norm": 1.0, "noise": 8.0, "most_epsilon": 3.0}), Told(), 0
    while not (why := before_pack(some, told)):
        told, count = telling(some, told), count + 1
    assert count == 8
    assert epsilon(some, told) <= 3.0 < epsilon(some, telling(some, told))
    assert why == "privacy: with one more contribution epsilon would be 3.15 (delta 1e-05), at most 3 may be told"
    assert before_join(some, OFFER, NOTHING, NOON, told) == why


def test_without_noise_nothing_is_counted() -> None:
    assert not before_pack(SitePolicy(), Told())
    assert telling(SitePolicy(), Told()) == Told()


@pytest.mark.parametrize("wrong", [{"noise": 0}, {"norm": -1}, {"delta": 1}, {"most_epsilon": 0}, {"epsilon": 1}])
def test_a_privacy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Privacy.model_validate({"norm": 1.0, "noise": 1.0, "most_epsilon": 1.0, **wrong})
