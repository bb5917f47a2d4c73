"""Labelled images in the layouts in which public data sets come.

- IDX pairs as of MNIST, plain or gzipped: ``*images-idx3-ubyte*`` beside ``*labels-idx1-ubyte*``
- the binary version of CIFAR-10: ``data_batch_*.bin``, ``test_batch.bin``
- a folder per class: ``<class>/*.{jpg,jpeg,png}``, classes numbered in the order of their names

Where a folder holds a public test part as well (``t10k-*`` or ``test-*``, ``test_batch.bin``, ``val/`` or ``test/``
beside ``train/``), training never sees it and evaluation sees nothing else.
"""

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from windfall.tasks.task import DataError

IMAGES_MAGIC: Final = 0x0803
LABELS_MAGIC: Final = 0x0801
"""Of IDX: two zeros, the type (8: unsigned byte), the number of dimensions."""
CIFAR_SIDE: Final = 32
CIFAR_RECORD: Final = 1 + 3 * CIFAR_SIDE**2
SUFFIXES: Final = (".jpg", ".jpeg", ".png")
TEST_PREFIXES: Final = ("t10k", "test")


class Images(Protocol):
    """Images and their labels, by their index in the files."""

    @property
    def labels(self) -> Tensor:
        """int64 ``[images]``."""

    def squares(self, indices: Tensor, side: int) -> Tensor:
        """Some images, each centred in a square: uint8 ``[len(indices), channels, side, side]``.

        Raises:
            DataError: an image that is only read now cannot be decoded.
        """


@dataclass(frozen=True, eq=False)
class Stored:
    """Images of one size in memory, uint8 ``[images, channels, size, size]``; a larger square has a black margin."""

    pixels: Tensor
    labels: Tensor

    def squares(self, indices: Tensor, side: int) -> Tensor:
        found = self.pixels[indices]
        before = (side - found.shape[-1]) // 2
        after = side - found.shape[-1] - before
        return F.pad(found, (before, after, before, after))


@dataclass(frozen=True, eq=False)
class Decoded:
    """Image files, read when they are due and scaled until the square is full."""

    files: Sequence[Path]
    labels: Tensor
    channels: int

    def squares(self, indices: Tensor, side: int) -> Tensor:
        return torch.stack([self._square(self.files[index], side) for index in indices.tolist()])

    def _square(self, path: Path, side: int) -> Tensor:
        try:
            with path.open("rb") as file:
                try:
                    with Image.open(file) as image:
                        plain = image.convert("L" if self.channels == 1 else "RGB")
                # What Pillow raises for a damaged file: SyntaxError from PNG, the others from all formats.
                except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                    cause = "no image" if isinstance(error, UnidentifiedImageError) else str(error)
                    raise DataError(
                        f"image {str(path)!r} cannot be decoded, read to byte {file.tell()}: {cause}. Replace it"
                    ) from error
        except OSError as error:
            raise DataError(f"cannot read image {str(path)!r}: {error.strerror}. Make it readable") from error
        square = ImageOps.fit(plain, (side, side), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(square)).view(side, side, self.channels).permute(2, 0, 1)


def open_images(folder: Path, *, test: bool, classes: int, channels: int, size: int) -> Images:
    """The training images of a folder, or its test images; where its names tell no test part apart, all of them.

    Args:
        channels: 1 (grey) or 3 (colour).
        size: rows and columns that images in IDX and CIFAR files must have; image files are scaled.

    Raises:
        DataError: nothing there, or a file is damaged, not what its name says, or does not fit the settings.
    """
    try:
        names = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"cannot read images from {str(folder)!r}: {error.strerror}. Name a folder that is there"
        ) from error
    idx = [path for path in names if "images" in path.name and "idx3-ubyte" in path.name]
    # Some tools leave the packed file beside the plain one.
    idx = [path for path in idx if path.suffix != ".gz" or path.with_suffix("") not in idx]
    cifar = [path for path in names if path.match("data_batch_*.bin") or path.name == "test_batch.bin"]
    if idx or cifar:
        parts = [_idx_pair(path) for path in _due(idx, test)] if idx else [_cifar(path) for path in _due(cifar, test)]
        found: Images = _together(parts, folder, channels, size)
    else:
        found = _class_folders(folder, test, classes, channels)
    if len(found.labels) and int(found.labels.max()) >= classes:
        raise DataError(
            f"images in {str(folder)!r} have labels above {classes - 1}, the task has {classes} classes. Set 'classes'"
        )
    return found


def _due(paths: Sequence[Path], test: bool) -> Sequence[Path]:
    held_out = [path for path in paths if path.name.startswith(TEST_PREFIXES)]
    training = [path for path in paths if path not in held_out]
    return (held_out if test else training) or paths


def _idx_pair(path: Path) -> tuple[Tensor, Tensor]:
    plain = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz"))
    packed = plain.with_name(f"{plain.name}.gz")
    beside = plain if plain.exists() else packed
    pixels, labels = _idx(path, IMAGES_MAGIC), _idx(beside, LABELS_MAGIC)
    if len(pixels) != len(labels):
        raise DataError(
            f"{str(path)!r} has {len(pixels)} images, {str(beside)!r} {len(labels)} labels. Fetch both again"
        )
    return pixels.unsqueeze(1), labels.long()


def _idx(path: Path, magic: int) -> Tensor:
    """http://yann.lecun.com/exdb/mnist/: magic number and dimensions, each 32 bits big-endian, then the elements."""
    content = _read(path)
    header = 4 * (1 + magic % 256)
    if len(content) < header:
        raise DataError(f"{str(path)!r} ends at byte {len(content)}, within its header. Fetch it again")
    found, *shape = (int.from_bytes(content[at : at + 4], "big") for at in range(0, header, 4))
    if found != magic:
        raise DataError(
            f"{str(path)!r} begins at byte 0 with {found:#06x}, IDX of its kind with {magic:#06x}. Fetch it again"
        )
    expected = header + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise DataError(f"{str(path)!r} ends at byte {len(content)}, its header says {expected}. Fetch it again")
    return (
        torch.frombuffer(content, dtype=torch.uint8, offset=header).view(shape)
        if expected > header
        else torch.empty(shape, dtype=torch.uint8)
    )


def _cifar(path: Path) -> tuple[Tensor, Tensor]:
    """https://www.cs.toronto.edu/~kriz/cifar.html: a label, then 1024 red, 1024 green and 1024 blue bytes."""
    content = _read(path)
    whole = len(content) // CIFAR_RECORD * CIFAR_RECORD
    if len(content) != whole or not content:
        raise DataError(f"{str(path)!r} ends at byte {len(content)}, within the image at byte {whole}. Fetch it again")
    records = torch.frombuffer(content, dtype=torch.uint8).view(-1, CIFAR_RECORD)
    wrong = (records[:, 0] > 9).nonzero().flatten()
    if len(wrong):
        at = int(wrong[0])
        raise DataError(
            f"{str(path)!r} has no label of CIFAR-10, which are 0 to 9, at byte {at * CIFAR_RECORD}. Fetch it again"
        )
    return records[:, 1:].view(-1, 3, CIFAR_SIDE, CIFAR_SIDE), records[:, 0].long()


def _together(parts: Sequence[tuple[Tensor, Tensor]], folder: Path, channels: int, size: int) -> Stored:
    for pixels, _ in parts:
        if pixels.shape[1:] != (channels, size, size):
            found = "×".join(str(length) for length in pixels.shape[1:])
            raise DataError(
                f"images in {str(folder)!r} are {found}, the task takes {channels}×{size}×{size}. Set 'channels' and "
                "'size'"
            )
    return Stored(torch.cat([pixels for pixels, _ in parts]), torch.cat([labels for _, labels in parts]))


def _class_folders(folder: Path, test: bool, classes: int, channels: int) -> Decoded:
    inner = [folder / name for name in (("val", "test") if test else ("train",)) if (folder / name).is_dir()]
    root = inner[0] if inner else folder
    try:
        names = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        files = [sorted(path for path in name.iterdir() if path.suffix.lower() in SUFFIXES) for name in names]
    except OSError as error:
        raise DataError(f"cannot read {error.filename!r}: {error.strerror}. Make it readable") from error
    if not any(files):
        raise DataError(
            f"no images in {str(folder)!r}. Put there IDX files (*images-idx3-ubyte* and *labels-idx1-ubyte*), "
            "CIFAR-10's data_batch_*.bin, or a folder of .jpg or .png files per class"
        )
    if len(names) != classes:
        # A label is the place of its name: a site that lacks a class would number the others differently.
        raise DataError(
            f"{str(root)!r} has {len(names)} class folders, the task {classes} classes. Set 'classes', or give a class "
            "without images an empty folder"
        )
    labels = torch.tensor([label for label, own in enumerate(files) for _ in own])
    return Decoded([path for own in files for path in own], labels, channels)


def _read(path: Path) -> bytearray:
    content = bytearray()
    try:
        if path.suffix != ".gz":
            return bytearray(path.read_bytes())
        with gzip.open(path) as file:
            # One unpacking at a time, so that all before the damage is counted.
            while chunk := file.read1(1 << 16):
                content += chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{str(path)!r} cannot be unpacked after unpacked byte {len(content)}: {error}. Fetch it again"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}. Put it there") from error
    return content
