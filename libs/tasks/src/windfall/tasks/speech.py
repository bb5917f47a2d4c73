"""Recorded speech from a folder: spoken digits or LibriSpeech, as PCM ``*.wav`` files.

Spoken digits lie as ``{digit}_{speaker}_{take}.wav`` (the Free Spoken Digit Dataset); takes 0 to 4 are held out, as its
authors do. LibriSpeech lies as ``speaker/chapter/*.wav`` beside ``*.trans.txt``, at any depth; what lies in a folder
``dev-*`` or ``test-*`` is held out, what lies in ``train-*`` is trained on, and where no folder says so every tenth
clip is held out, chosen by a hash of its name.
"""

import re
import wave
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from windfall.tasks.order import Order, word
from windfall.tasks.task import Batch, DataError

Wave = npt.NDArray[np.float32]
"""Sound pressure by sample, in no unit: ``[samples]``."""
Labels = Literal["digit", "letters", "none"]

LETTERS: Final = " 'ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""What a transcript is made of. A letter's label is its place here plus one; 0 is CTC's blank."""
DIGITS: Final = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")

LENGTH, NOISE, INDEX, LABELS = range(4)
"""Columns of a batch's targets; from ``LABELS`` on there are labels, filled up with −1."""

HELD_OUT_TAKES: Final = range(5)
TRUNCATION_CURE: Final = "Copy it again or remove it"
SHIFT_S: Final = 0.05
GAIN_DB: Final = 6.0
QUIETEST_NOISE_DB, LOUDEST_NOISE_DB = -40.0, -10.0

_DIGIT_NAME: Final = re.compile(r"(\d)_([^_]+)_(\d+)")


@dataclass(frozen=True)
class Clip:
    """One recording."""

    path: Path
    speaker: str
    words: str
    """What is said, in letters of ``LETTERS``."""
    held_out: bool

    def labels(self, kind: Labels) -> list[int]:
        """
        Raises:
            DataError: a digit is asked for and something else is said.
        """
        match kind:
            case "none":
                return []
            case "letters":
                return [LETTERS.index(letter) + 1 for letter in self.words]
            case "digit":
                if self.words not in DIGITS:
                    raise DataError(f"{str(self.path)!r} is no spoken digit. Train on it with objective ctc")
                return [DIGITS.index(self.words)]


def find_clips(folder: Path, sample_rate: int) -> tuple[Clip, ...]:
    """Every clip below a folder, sorted by path. Looks at all headers, so that a broken file is found at once.

    Raises:
        DataError: the folder is missing, or holds a file that cannot be trained on, or none.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {str(folder)!r}. Name a folder of recordings")
    transcripts = sorted(folder.rglob("*.trans.txt"))
    clips = tuple(_librispeech(folder, transcripts) if transcripts else _digits(folder))
    if not clips:
        raise DataError(f"no *.wav file in {str(folder)!r}. Put spoken digits or LibriSpeech there")
    for clip in clips:
        read_wave(clip.path, sample_rate, header_only=True)
    return clips


def _digits(folder: Path) -> Iterable[Clip]:
    for path in sorted(folder.rglob("*.wav")):
        named = _DIGIT_NAME.fullmatch(path.stem)
        if named is None:
            raise DataError(f"{str(path)!r} is not named {{digit}}_{{speaker}}_{{take}}.wav. Rename or remove it")
        digit, speaker, take = named.groups()
        yield Clip(path, speaker, DIGITS[int(digit)], held_out=int(take) in HELD_OUT_TAKES)


def _librispeech(folder: Path, transcripts: Sequence[Path]) -> Iterable[Clip]:
    for transcript in transcripts:
        try:
            lines = transcript.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {str(transcript)!r}: {error}. {TRUNCATION_CURE}") from error
        for number, line in enumerate(lines, start=1):
            name, _, words = line.strip().partition(" ")
            if not words or set(words) - set(LETTERS):
                raise DataError(
                    f"{str(transcript)!r} line {number} is not a name and words in capital letters. Correct it"
                )
            path = transcript.with_name(f"{name}.wav")
            if not path.exists() and path.with_suffix(".flac").exists():
                raise DataError(
                    f"{str(path.with_suffix('.flac'))!r} is FLAC, which is not read. Convert all once: "
                    f"find {quote(str(folder))} -name '*.flac' -exec flac --decode --silent {{}} +"
                )
            yield Clip(path, name.partition("-")[0], words, _held_out(path, name))


def _held_out(path: Path, name: str) -> bool:
    for part in reversed(path.absolute().parent.parts):
        if part.startswith("train-"):
            return False
        if part.startswith(("dev-", "test-")):
            return True
    return word(0, "held out", name) % 10 == 0


def read_wave(path: Path, sample_rate: int, header_only: bool = False) -> Wave:
    """PCM of 8, 16, 24 or 32 bits, the mean of its channels, in [−1, 1); nothing when only the header is looked at.

    Raises:
        DataError: it cannot be read, is cut short, holds no sound, or has another sample rate. One line, with the byte
            at which reading ended where the file is at fault.
    """
    try:
        with path.open("rb") as file:
            try:
                with wave.open(file) as opened:
                    frames, rate = opened.getnframes(), opened.getframerate()
                    channels, octets = opened.getnchannels(), opened.getsampwidth()
                    begin, size = file.tell(), path.stat().st_size
                    pcm = b"" if header_only else opened.readframes(frames)
            except (wave.Error, EOFError, RuntimeError) as error:
                # RuntimeError: a chunk says that it is longer than where it lies.
                cause = str(error) or "the file ends"
                raise DataError(
                    f"{str(path)!r} is no PCM wav at byte {file.tell()}: {cause}. {TRUNCATION_CURE}"
                ) from error
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}. {TRUNCATION_CURE}") from error
    due = begin + frames * channels * octets
    if size < due:
        raise DataError(f"{str(path)!r} ends at byte {size} of {due}. {TRUNCATION_CURE}")
    if not frames:
        raise DataError(f"{str(path)!r} holds no sound after byte {begin}. {TRUNCATION_CURE}")
    if rate != sample_rate:
        raise DataError(
            f"{str(path)!r} has {rate} samples per second, the model hears {sample_rate}. "
            f"Convert it or set sample_rate to {rate}"
        )
    if octets not in (1, 2, 3, 4):
        raise DataError(f"{str(path)!r} has {8 * octets} bits per sample. Convert it to 16")
    mono: Wave = _decode(pcm, octets).reshape(-1, channels).mean(axis=1, dtype=np.float32)
    return mono


def _decode(pcm: bytes, octets: int) -> Wave:
    if octets == 1:
        centred = np.frombuffer(pcm, dtype=np.uint8).astype(np.float32) - np.float32(128)
        return centred / np.float32(128)
    if octets == 3:
        # Into the upper three bytes of a 32-bit word, which keeps the sign.
        words = np.zeros((len(pcm) // 3, 4), dtype=np.uint8)
        words[:, 1:] = np.frombuffer(pcm, dtype=np.uint8).reshape(-1, 3)
        pcm, octets = words.tobytes(), 4
    whole: Wave = np.frombuffer(pcm, dtype=f"<i{octets}").astype(np.float32)
    return whole / np.float32(2 ** (8 * octets - 1))


def normalised(sound: Wave) -> Wave:
    """Mean 0 and variance 1, as wav2vec 2.0 hears it."""
    standard: Wave = ((sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)).astype(np.float32)
    return standard


def augmented(sound: Wave, sample_rate: int, seed: int) -> Wave:
    """A normalised clip, moved to a random place between 0.05 s of silence in all, up to 6 dB louder or quieter, with
    white noise 10 to 40 dB below it. The seed decides all of it."""
    random = np.random.Generator(np.random.Philox(seed))
    silence = int(SHIFT_S * sample_rate)
    before = int(random.integers(silence + 1))
    moved = np.pad(sound, (before, silence - before))
    gain, level = random.uniform(-GAIN_DB, GAIN_DB), random.uniform(QUIETEST_NOISE_DB, LOUDEST_NOISE_DB)
    noise = random.standard_normal(len(moved), dtype=np.float32) * np.float32(10 ** (level / 20))
    loud: Wave = (moved + noise) * np.float32(10 ** (gain / 20))
    return loud


@dataclass(frozen=True)
class Hearing:
    """How clips become tensors."""

    sample_rate: int
    labels: Labels
    at_least: int
    """Samples; a shorter clip is filled up with silence, which then counts as part of it."""
    at_most: int | None = None
    """Samples that are cut out of a longer clip, at a place that its noise seed decides."""
    augment: bool = False

    def sound(self, clip: Clip, noise: int, training: bool) -> Wave:
        sound = normalised(read_wave(clip.path, self.sample_rate))
        if training and self.augment:
            sound = augmented(sound, self.sample_rate, noise)
        if self.at_most is not None and len(sound) > self.at_most:
            begin = word(noise, "crop") % (len(sound) - self.at_most + 1)
            sound = sound[begin : begin + self.at_most]
        filled: Wave = np.pad(sound, (0, max(0, self.at_least - len(sound))))
        return filled

    def pack(self, clips: Sequence[Clip], noises: Sequence[int], indices: Sequence[int], training: bool) -> Batch:
        """
        Returns:
            inputs: fp32 ``[clips, longest]``, zeros after the end of a clip.
            targets: int64 ``[clips, 3 + most labels]``: length in samples, noise seed, number of the sample, labels.
            tokens: the number of clips, because the loss is a mean over clips.

        Raises:
            DataError: a clip cannot be read or has no such labels.
        """
        sounds = [self.sound(clip, noise, training) for clip, noise in zip(clips, noises, strict=True)]
        labels = [clip.labels(self.labels) for clip in clips]
        inputs = torch.zeros(len(clips), max(map(len, sounds)))
        targets = torch.full((len(clips), LABELS + max(map(len, labels))), -1, dtype=torch.int64)
        for row, (sound, label) in enumerate(zip(sounds, labels, strict=True)):
            inputs[row, : len(sound)] = torch.from_numpy(sound)
            targets[row, : LABELS + len(label)] = torch.tensor([len(sound), noises[row], indices[row], *label])
        return Batch(inputs, targets, tokens=len(clips))


class ClipLoader:
    """Clips in a new order in every pass over them."""

    def __init__(self, clips: Sequence[Clip], hearing: Hearing, seed: int, cursor: int = 0) -> None:
        self.cursor = cursor
        self._clips = clips
        self._hearing = hearing
        self._seed = seed
        self._order = Order(seed, len(clips))

    def skip(self, size: int) -> None:
        self.cursor += size

    def batch(self, size: int, model: nn.Module) -> Batch:
        indices = range(self.cursor, self.cursor + size)
        clips = [self._clips[place] for place in self._order.draw(self.cursor, size).tolist()]
        self.cursor += size
        return self._hearing.pack(clips, [word(self._seed, "noise", index) for index in indices], indices, True)
