"""What describes a node: words that fit, and a document that is the same in every version that can read it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from windfall.contracts.events import Measured, NodeProfiled, Recommendation
from windfall.contracts.hardware import Accelerator, Hardware, Token, token
from windfall.contracts.message import derived_id, instant
from windfall.contracts.profile import API_VERSION, Identity, Local, Profile, told

TOKEN: TypeAdapter[str] = TypeAdapter(Token)
WINDOW = derived_id("hardware", "window", "site-a")
EVENT = NodeProfiled(
    id=WINDOW,
    at=instant("2026-01-01T12:00:00+00:00"),
    site="site-a",
    window_id=WINDOW,
    lease_token=1,
    node="site-a-1",
    measured=Measured(fingerprint="v1", cpu_model="any", cpu_cores=1, memory_bytes=1),
    recommendation=Recommendation(micro_batch=1, local_steps=1, because="it is the only one"),
    hardware=Hardware(accelerators=(Accelerator(vendor="amd", model="AMD Instinct MI300X"),)),
)
LOCAL = Local(accelerators=(Identity(uuid="GPU-dc91284879207f2b", pci_address="0000:05:00.0"),), storage="/var/lib/x")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("550.54.15", "550.54.15"),
        ("6.1.0+", "6.1.0+"),
        ("Linux version 6.8 (buildd@host)", "Linux-version-6.8-buildd-host"),
        ("/1g.10gb/", "1g.10gb"),
        ("--", None),
        ("", None),
    ],
)
def test_a_text_becomes_a_word(text: str, word: str | None) -> None:
    assert token(text) == word


@given(st.text(max_size=200))
def test_whatever_is_left_of_a_text_is_a_word(text: str) -> None:
    word = token(text)
    assert word is None or TOKEN.validate_python(word) == word
    assert word is not None or not re.search(r"[A-Za-z0-9]", text[:63])


def test_a_profile_is_the_same_after_a_trip_through_a_file() -> None:
    profile = told(EVENT, LOCAL)
    text = profile.model_dump_json(indent=2)
    assert f'"apiVersion": "{API_VERSION}"' in text
    assert Profile.model_validate_json(text) == profile


def test_another_version_is_refused() -> None:
    text = told(EVENT).model_dump_json().replace(API_VERSION, "windfall.dev/profile/v2")
    with pytest.raises(ValueError, match="apiVersion"):
        Profile.model_validate_json(text)


def test_what_stays_at_the_site_is_in_no_event() -> None:
    said = EVENT.model_dump_json()
    for secret in ("GPU-dc91284879207f2b", "0000:05:00.0", "/var/lib/x"):
        assert secret in told(EVENT, LOCAL).model_dump_json()
        assert secret not in said
    assert told(EVENT).local is None


def test_a_speaker_of_before_hardware_is_understood() -> None:
    before = NodeProfiled.model_validate_json(EVENT.model_dump_json(exclude={"hardware"}))
    assert before.hardware is None
    assert told(before).hardware == Hardware()
