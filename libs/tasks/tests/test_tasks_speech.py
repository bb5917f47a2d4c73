import os
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from windfall.tasks.speech import (
    DIGITS,
    INDEX,
    LABELS,
    LENGTH,
    LETTERS,
    NOISE,
    Clip,
    ClipLoader,
    Hearing,
    augmented,
    find_clips,
    normalised,
    read_wave,
)
from windfall.tasks.task import DataError

RATE = 8000
HEARING = Hearing(RATE, "digit", at_least=400)
NO_MODEL = nn.Identity()


def write_tone(path: Path, hertz: float = 440.0, samples: int = 800, rate: int = RATE, octets: int = 2) -> None:
    """A tone as PCM: unsigned for one byte a sample, signed and little-endian for more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = np.round(np.sin(2 * np.pi * hertz * np.arange(samples) / rate) * (2 ** (8 * octets - 1) - 1) / 2)
    words = (whole.astype(np.int64) + (128 if octets == 1 else 0)).astype("<i8").view(np.uint8).reshape(-1, 8)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, octets, rate, samples, "NONE", ""))
        file.writeframes(words[:, :octets].tobytes())


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    for digit in (0, 7):
        for speaker in ("ada", "bo"):
            for take in (0, 4, 5, 12):
                write_tone(tmp_path / f"{digit}_{speaker}_{take}.wav", 200 + 50 * digit, 500 + 10 * take)
    return tmp_path


@pytest.fixture
def libri(tmp_path: Path) -> Path:
    for part, chapter in (("train-clean", "19/198"), ("dev-clean", "84/121")):
        place = tmp_path / part / chapter
        name = chapter.replace("/", "-")
        for number in range(2):
            write_tone(place / f"{name}-{number:04}.wav", 300, 1600, rate=16_000)
        (place / f"{name}.trans.txt").write_text(f"{name}-0000 IT'S THE WIND\n{name}-0001 FALL\n")
    return tmp_path


def test_the_first_five_takes_are_held_out(digits: Path) -> None:
    clips = find_clips(digits, RATE)
    assert len(clips) == 16
    assert {clip.path.stem.split("_")[2] for clip in clips if clip.held_out} == {"0", "4"}
    assert {(clip.speaker, clip.words) for clip in clips} == {(who, DIGITS[n]) for who in ("ada", "bo") for n in (0, 7)}


def test_librispeech_says_which_part_is_held_out(libri: Path) -> None:
    clips = find_clips(libri, 16_000)
    assert [(clip.speaker, clip.words, clip.held_out) for clip in clips] == [
        ("84", "IT'S THE WIND", True),
        ("84", "FALL", True),
        ("19", "IT'S THE WIND", False),
        ("19", "FALL", False),
    ]
    assert all(clip.held_out for clip in find_clips(libri / "dev-clean", 16_000)), "the folder itself says so"


def test_a_tenth_is_held_out_where_no_folder_says_so(tmp_path: Path) -> None:
    place, names = tmp_path / "7" / "8", [f"7-8-{number:04}" for number in range(60)]
    for name in names:
        write_tone(place / f"{name}.wav", samples=500)
    (place / "7-8.trans.txt").write_text("".join(f"{name} WIND\n" for name in names))
    held_out = [clip.held_out for clip in find_clips(tmp_path, RATE)]
    assert 1 <= sum(held_out) <= 15
    assert held_out == [clip.held_out for clip in find_clips(tmp_path, RATE)]


@pytest.mark.parametrize("octets", [1, 2, 3, 4])
def test_pcm_of_any_width_is_the_same_sound(octets: int, tmp_path: Path) -> None:
    write_tone(tmp_path / "tone.wav", octets=octets)
    sound = read_wave(tmp_path / "tone.wav", RATE)
    expected = np.sin(2 * np.pi * 440 * np.arange(800) / RATE) / 2
    np.testing.assert_allclose(sound, expected, atol=2.0 ** (1 - 8 * octets) + 1e-6)


def test_channels_are_averaged(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "two.wav"), "wb") as file:
        file.setparams((2, 2, RATE, 3, "NONE", ""))
        file.writeframes(np.array([[16384, 0], [0, -16384], [8192, 8192]], dtype="<i2").tobytes())
    assert read_wave(tmp_path / "two.wav", RATE).tolist() == [0.25, -0.25, 0.25]


@pytest.mark.parametrize("kept", [0, 3, 11, 20, 30, 43, 44, 600, 1643], ids=str)
def test_a_file_cut_anywhere_is_named_with_its_byte(kept: int, digits: Path) -> None:
    broken = digits / "0_ada_5.wav"
    write_tone(broken)
    broken.write_bytes(broken.read_bytes()[:kept])
    with pytest.raises(DataError, match=rf"0_ada_5\.wav' .*byte {kept}\D") as caught:
        find_clips(digits, RATE)
    assert "\n" not in str(caught.value)


def test_what_is_no_wav_is_named_with_its_byte(digits: Path) -> None:
    (digits / "0_ada_5.wav").write_bytes(b"OggS" + bytes(100))
    with pytest.raises(DataError, match=r"0_ada_5\.wav' is no PCM wav at byte \d+: file does not start with RIFF id"):
        find_clips(digits, RATE)


def test_a_file_without_sound(digits: Path) -> None:
    write_tone(digits / "0_ada_5.wav", samples=0)
    with pytest.raises(DataError, match=r"0_ada_5\.wav' holds no sound after byte 44"):
        find_clips(digits, RATE)


def test_another_sample_rate_is_named(digits: Path) -> None:
    with pytest.raises(DataError, match=r"has 8000 samples per second, the model hears 16000\. Convert"):
        find_clips(digits, 16_000)


def test_a_name_that_says_no_digit(digits: Path) -> None:
    write_tone(digits / "hello.wav")
    with pytest.raises(DataError, match=r"hello\.wav' is not named {digit}_{speaker}_{take}\.wav"):
        find_clips(digits, RATE)


def test_a_missing_or_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder '.*nowhere'"):
        find_clips(tmp_path / "nowhere", RATE)
    with pytest.raises(DataError, match=r"no \*\.wav file in"):
        find_clips(tmp_path, RATE)


def test_flac_is_named_with_the_command_that_converts_it(libri: Path) -> None:
    place = libri / "train-clean" / "19" / "198"
    (place / "19-198-0001.wav").rename(place / "19-198-0001.flac")
    with pytest.raises(DataError, match=r"0001\.flac' is FLAC.*: find .* -name '\*\.flac' -exec flac --decode"):
        find_clips(libri, 16_000)


def test_a_transcript_of_other_letters(libri: Path) -> None:
    (libri / "dev-clean/84/121/84-121.trans.txt").write_text("84-121-0000 FALL\n84-121-0001 žák\n")
    with pytest.raises(DataError, match=r"84-121\.trans\.txt' line 2 is not a name and words in capital letters"):
        find_clips(libri, 16_000)


def test_a_batch_carries_lengths_seeds_and_labels(libri: Path) -> None:
    clips = find_clips(libri, 16_000)
    write_tone(clips[1].path, 300, 900, rate=16_000)
    batch = Hearing(16_000, "letters", at_least=1000).pack(clips[:2], [11, 12], [5, 6], training=False)
    assert batch.inputs.shape == (2, 1600) and batch.inputs.dtype == torch.float32
    assert batch.targets[:, LENGTH].tolist() == [1600, 1000], "a short clip is filled up"
    assert batch.targets[:, NOISE].tolist() == [11, 12] and batch.targets[:, INDEX].tolist() == [5, 6]
    words = ["".join(LETTERS[label - 1] for label in row if label > 0) for row in batch.targets[:, LABELS:].tolist()]
    assert words == ["IT'S THE WIND", "FALL"]
    assert (batch.inputs[1, 900:] == 0).all() and batch.tokens == 2
    assert batch.inputs[0].mean().item() == pytest.approx(0, abs=1e-5)
    assert batch.inputs[0].std().item() == pytest.approx(1, abs=1e-2)


def test_no_digit_in_a_sentence(libri: Path) -> None:
    with pytest.raises(DataError, match=r"is no spoken digit\. Train on it with objective ctc"):
        Hearing(16_000, "digit", at_least=1).pack(find_clips(libri, 16_000)[:1], [0], [0], training=True)


def test_augmentation_is_decided_by_its_seed() -> None:
    sound = normalised(np.sin(np.arange(2000, dtype=np.float32) / 5))
    once, again, other = (augmented(sound, RATE, seed) for seed in (1, 1, 2))
    assert np.array_equal(once, again) and not np.array_equal(once, other)
    assert len(once) == 2000 + 400 and once.dtype == np.float32
    loudness = [augmented(sound, RATE, seed).std() for seed in range(50)]
    assert 0.4 < min(loudness) < 0.8 and 1.2 < max(loudness) < 2.1


def test_a_long_clip_is_cropped_at_a_place_of_its_seed(digits: Path) -> None:
    clip = find_clips(digits, RATE)[0]
    hearing = Hearing(RATE, "none", at_least=100, at_most=300)
    cuts = [hearing.sound(clip, noise, training=True) for noise in (1, 1, 2)]
    assert len(cuts[0]) == 300 and np.array_equal(cuts[0], cuts[1]) and not np.array_equal(cuts[0], cuts[2])


def test_every_clip_is_heard_once_in_a_pass(digits: Path) -> None:
    clips = find_clips(digits, RATE)
    loader = ClipLoader(clips, HEARING, seed=3)
    lengths = [sorted(loader.batch(16, NO_MODEL).targets[:, LENGTH].tolist()) for _ in range(2)]
    assert lengths[0] == lengths[1] == sorted(length for take in (0, 4, 5, 12) for length in [500 + 10 * take] * 4)


@pytest.mark.parametrize("cursor", [0, 5, 16, 10**9], ids=str)
def test_a_loader_resumes_at_any_cursor(cursor: int, digits: Path) -> None:
    clips = find_clips(digits, RATE)
    hearing = Hearing(RATE, "digit", at_least=400, augment=True)
    loader = ClipLoader(clips, hearing, seed=3, cursor=cursor)
    loader.batch(3, NO_MODEL)
    second = loader.batch(4, NO_MODEL)
    again = ClipLoader(clips, hearing, seed=3, cursor=cursor + 3)
    parts = [again.batch(1, NO_MODEL), again.batch(3, NO_MODEL)]
    assert torch.equal(torch.cat([part.targets for part in parts]), second.targets)
    for row, one in enumerate([parts[0].inputs[0], *parts[1].inputs]):
        length = int(second.targets[row, LENGTH])
        assert torch.equal(one[:length], second.inputs[row, :length])
    assert loader.cursor == again.cursor == cursor + 7


def test_seeds_give_other_orders_and_noise(digits: Path) -> None:
    clips = find_clips(digits, RATE)
    one, other = (ClipLoader(clips, HEARING, seed).batch(16, NO_MODEL).targets for seed in (1, 2))
    assert not torch.equal(one[:, LENGTH], other[:, LENGTH])
    assert not set(one[:, NOISE].tolist()) & set(other[:, NOISE].tolist())


def test_the_spoken_digits_are_read(spoken_digits: Path) -> None:
    clips = find_clips(spoken_digits, RATE)
    assert (len(clips), sum(clip.held_out for clip in clips)) == (900, 300)
    assert len({clip.speaker for clip in clips}) == 6
    longest = max(len(read_wave(clip.path, RATE)) for clip in clips)
    assert longest == 10_504


@pytest.fixture
def spoken_digits() -> Path:
    root = Path(__file__).parents[3]
    folder = Path(os.environ.get("WINDFALL_DATA", root.parent / "shared" / "data")) / "audio" / "fsdd" / "recordings"
    if not folder.is_dir():
        pytest.skip(f"no spoken digits in {folder}; WINDFALL_DATA names the folder of data")
    return folder


def test_a_clip_is_a_value(tmp_path: Path) -> None:
    assert Clip(tmp_path, "ada", "SIX", held_out=False).labels("digit") == [6]
    assert Clip(tmp_path, "ada", "SIX", held_out=False).labels("none") == []
