"""The chain: it holds when it was left alone, and any one change of it is found, where it is, by name."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import assume, given
from hypothesis import strategies as st

from windfall.energy.chain import Broken, Entry, Genesis, Verified, public_key_of, seal, unseal, verify
from windfall.energy.power import SiteState

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PUBLIC = public_key_of(KEY)


def entry(sequence: int, previous_hash: str, energy_kwh: float = 0.117) -> Entry:
    start = NOON + timedelta(minutes=15 * (sequence - 1))
    return Entry(
        sequence=sequence,
        site="site-a",
        window_id=UUID(int=7),
        state=SiteState.TRAINING,
        start=start,
        end=start + timedelta(minutes=15),
        energy_kwh=energy_kwh,
        emissions_kg=0.005,
        clean_energy_kwh=0.1,
        always_on_kwh=0.506,
        always_on_kg=0.02,
        intensity_source="marginal",
        mean_intensity_g_per_kwh=44.25,
        method="modelled",
        meter="",
        previous_hash=previous_hash,
    )


def chain(length: int, key: Ed25519PrivateKey = KEY, energy_kwh: float = 0.117) -> list[str]:
    genesis = Genesis(site="site-a", federation="demo", public_key=public_key_of(key), created_at=NOON)
    sealed = [seal(genesis, key)]
    for sequence in range(1, length + 1):
        sealed.append(seal(entry(sequence, sealed[-1].hash, energy_kwh), key))
    return [record.line for record in sealed]


LINES = chain(6)
HEADS = {place: unseal(line, PUBLIC).hash for place, line in enumerate(LINES) if place}


def fault(
    lines: list[str], public_key: str | None = PUBLIC, published: dict[int, str] | None = None
) -> tuple[int, str]:
    found = verify(lines, public_key, published)
    assert isinstance(found, Broken), "nothing was found"
    assert str(found)
    return found.sequence, found.fault


def test_a_chain_that_was_left_alone_holds() -> None:
    found = verify(LINES, PUBLIC, HEADS)
    assert isinstance(found, Verified)
    assert [each.sequence for each in found.entries] == [1, 2, 3, 4, 5, 6]
    assert (found.genesis.federation, found.head) == ("demo", HEADS[6])
    assert verify(LINES) == verify(LINES, PUBLIC)


def test_the_bytes_of_a_record_are_pinned() -> None:
    """Whoever checks a ledger with a program of their own needs these to stay what they are."""
    assert LINES[1].startswith(
        '{"entry":{"always_on_kg":0.02,"always_on_kwh":0.506,"clean_energy_kwh":0.1,"emissions_kg":0.005,'
        '"end":"2026-01-01T12:15:00Z","energy_kwh":0.117,"intensity_source":"marginal",'
        '"mean_intensity_g_per_kwh":44.25,"meter":"","method":"modelled","previous_hash":"'
    )
    assert HEADS[1] == "2b8735b6991aeb546147b4ed9a5e856828242b2e42b3544ab71a0511907fc9c9"


def test_another_program_needs_only_sha256_and_ed25519() -> None:
    """As the operations page describes it, on the bytes of the line as they stand there."""
    previous = bytes(32)
    for line in LINES:
        body = line[line.index(":") + 1 : line.rindex(',"hash":')]
        previous = hashlib.sha256(previous + body.encode()).digest()
        signature = bytes.fromhex(line[-130:-2])
        KEY.public_key().verify(signature, b"windfall.ledger.v1\x00" + previous)
    assert previous.hex() == HEADS[6]


def resigned(place: int, key: Ed25519PrivateKey) -> str:
    record = unseal(LINES[place], PUBLIC).record
    assert isinstance(record, Entry)
    return seal(record.model_copy(update={"energy_kwh": 0.001}), key).line


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda lines: [*lines[:3], lines[3].replace("0.117", "0.017"), *lines[4:]], (3, "edited")),
        (lambda lines: [*lines[:3], *lines[4:]], (3, "removed")),
        (lambda lines: lines[1:], (0, "removed")),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], (2, "removed")),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], (3, "reordered")),
        (lambda lines: [lines[0], *lines], (1, "reordered")),
        (lambda lines: [*lines[:3], resigned(3, OTHER_KEY), *lines[4:]], (3, "signature")),
        (lambda lines: [*lines[:3], resigned(3, KEY), *lines[4:]], (3, "rewritten")),
        (lambda lines: chain(6, OTHER_KEY), (0, "key")),
        (lambda lines: chain(6, energy_kwh=0.001), (1, "rewritten")),
        (lambda lines: lines[:4], (4, "truncated")),
        (lambda lines: [], (0, "truncated")),
        (lambda lines: [*lines[:3], lines[3][:50], *lines[4:]], (3, "unreadable")),
        (lambda lines: [*lines[:3], "[" * 100_000, *lines[3:]], (3, "unreadable")),
        (lambda lines: [*lines[:3], lines[3].replace(",", ", "), *lines[4:]], (3, "edited")),
    ],
    ids=[
        "edited",
        "removed",
        "beheaded",
        "swapped",
        "said twice",
        "begun twice",
        "forged",
        "rewritten by the site",
        "another site's key",
        "all rewritten by the site",
        "cut off",
        "emptied",
        "torn",
        "nested",
        "reformatted",
    ],
)
def test_what_was_done_is_named(change: Callable[[list[str]], list[str]], found: tuple[int, str]) -> None:
    assert fault(change(list(LINES)), PUBLIC, HEADS) == found


def test_a_site_that_rewrites_its_past_is_betrayed_by_the_next_link() -> None:
    """Even without what was published: the entry after it names another hash."""
    assert fault([*LINES[:3], resigned(3, KEY), *LINES[4:]]) == (4, "relinked")


def test_only_what_was_published_betrays_a_cut() -> None:
    assert isinstance(verify(LINES[:4], PUBLIC), Verified)
    assert fault(LINES[:4], PUBLIC, {3: HEADS[3], 5: HEADS[5]}) == (4, "truncated")


@given(st.data())
def test_any_byte_that_is_changed_is_found(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(LINES) - 1), "line")
    line = LINES[place]
    at = data.draw(st.integers(0, len(line) - 1), "position")
    another = data.draw(st.characters(codec="ascii", exclude_characters="\n" + line[at]), "character")
    mutated = [*LINES]
    mutated[place] = line[:at] + another + line[at + 1 :]
    sequence, _ = fault(mutated)
    assert sequence == place


@given(st.data())
def test_any_rearrangement_is_found(data: st.DataObject) -> None:
    drawn = data.draw(st.lists(st.sampled_from(LINES), max_size=8) | st.permutations(LINES))
    assume(drawn != LINES)
    fault(drawn, PUBLIC, HEADS)


@given(st.integers(1, 6), st.sampled_from(sorted(Entry.model_fields)), st.booleans())
def test_a_record_that_is_hashed_anew_still_lacks_the_signature(place: int, name: str, forged: bool) -> None:
    """Every field counts: the strongest change that goes without the key."""
    record = unseal(LINES[place], PUBLIC).record
    assert isinstance(record, Entry)
    changed = {
        "sequence": record.sequence + 1,
        "site": "site-b",
        "window_id": None,
        "state": SiteState.IDLE,
        "start": record.start + timedelta(seconds=1),
        "end": record.end - timedelta(seconds=1),
        "intensity_source": "average",
        "method": "metered",
        "meter": "nvml",
        "previous_hash": "1" * 64,
    }.get(name, 0.125)
    fresh = seal(record.model_copy(update={name: changed}), OTHER_KEY)
    old_signature = unseal(LINES[place], PUBLIC).signature
    line = fresh.line if forged else fresh.line.replace(fresh.signature, old_signature)
    assert fault([*LINES[:place], line, *LINES[place + 1 :]])[0] == place


def test_a_line_alone() -> None:
    assert unseal(LINES[0]).record == unseal(LINES[0], PUBLIC).record
    with pytest.raises(ValueError, match="does not say who signs it"):
        unseal(LINES[1])
    with pytest.raises(ValueError, match="not signed by the site's key"):
        unseal(LINES[1], public_key_of(OTHER_KEY))
