import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from windfall.tasks.crops import ImageLoader, View
from windfall.tasks.images import Images, Stored, open_images
from windfall.tasks.order import Order
from windfall.tasks.share import chosen, read_share
from windfall.tasks.shipped import shipped
from windfall.tasks.task import DataError

MODEL = nn.Identity()
"""No loader of images looks at it."""


def idx(magic: int, *shape: int, content: bytes) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in (magic, *shape)) + content


def write_pair(folder: Path, prefix: str = "", images: int = 6, packed: bool = False) -> tuple[Path, Path]:
    """Image i is filled with i and labelled i modulo 10."""
    pixels = b"".join(bytes([index]) * 16 for index in range(images))
    labels = bytes(index % 10 for index in range(images))
    paths = folder / f"{prefix}images-idx3-ubyte", folder / f"{prefix}labels-idx1-ubyte"
    contents = idx(0x803, images, 4, 4, content=pixels), idx(0x801, images, content=labels)
    if not packed:
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        return paths
    paths = paths[0].with_name(f"{paths[0].name}.gz"), paths[1].with_name(f"{paths[1].name}.gz")
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(gzip.compress(content, mtime=0))
    return paths


def write_cifar(path: Path, labels: bytes) -> None:
    path.write_bytes(
        b"".join(bytes([label]) + bytes([1]) * 1024 + bytes([2]) * 1024 + bytes([3]) * 1024 for label in labels)
    )


def write_classes(root: Path, **images: int) -> None:
    for name, count in images.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (12, 8), (200, 10 * index, 0)).save(root / name / f"{index}.png")


def grey(folder: Path, test: bool = False) -> Images:
    return open_images(folder, test=test, classes=10, channels=1, size=4)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_idx_pairs_are_read(tmp_path: Path, packed: bool) -> None:
    write_pair(tmp_path, packed=packed)
    images = grey(tmp_path)
    assert images.labels.tolist() == [0, 1, 2, 3, 4, 5]
    squares = images.squares(torch.tensor([3, 1]), 4)
    assert squares.shape == (2, 1, 4, 4) and squares.dtype == torch.uint8
    assert squares.flatten(1).tolist() == [[3] * 16, [1] * 16]


def test_a_packed_file_beside_the_plain_one_counts_once(tmp_path: Path) -> None:
    write_pair(tmp_path)
    write_pair(tmp_path, packed=True)
    assert len(grey(tmp_path).labels) == 6


@pytest.mark.parametrize(("test", "count"), [(False, 8), (True, 3)], ids=["training", "test"])
def test_the_public_test_part_is_never_trained_on(tmp_path: Path, test: bool, count: int) -> None:
    for layout in ("idx", "cifar", "folders"):
        (tmp_path / layout).mkdir()
    write_pair(tmp_path / "idx", "train-", images=8)
    write_pair(tmp_path / "idx", "t10k-", images=3)
    write_cifar(tmp_path / "cifar" / "data_batch_1.bin", bytes(5))
    write_cifar(tmp_path / "cifar" / "data_batch_2.bin", bytes(3))
    write_cifar(tmp_path / "cifar" / "test_batch.bin", bytes(3))
    write_classes(tmp_path / "folders" / "train", cat=3, dog=5)
    write_classes(tmp_path / "folders" / "val", cat=2, dog=1)
    assert len(grey(tmp_path / "idx", test).labels) == count
    assert len(open_images(tmp_path / "cifar", test=test, classes=10, channels=3, size=32).labels) == count
    assert len(open_images(tmp_path / "folders", test=test, classes=2, channels=3, size=8).labels) == count


def test_cifar_is_read_plane_by_plane(tmp_path: Path) -> None:
    write_cifar(tmp_path / "data_batch_1.bin", bytes([7, 9]))
    images = open_images(tmp_path, test=False, classes=10, channels=3, size=32)
    assert images.labels.tolist() == [7, 9]
    assert torch.unique(images.squares(torch.tensor([1]), 32).flatten(2), dim=2).tolist() == [[[1], [2], [3]]]


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
def test_class_folders_are_numbered_by_name_and_scaled(tmp_path: Path, channels: int) -> None:
    write_classes(tmp_path, dog=1, cat=2)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    images = open_images(tmp_path, test=False, classes=2, channels=channels, size=6)
    assert images.labels.tolist() == [0, 0, 1]
    squares = images.squares(torch.tensor([2, 0]), 6)
    assert squares.shape == (2, channels, 6, 6)
    if channels == 3:
        assert torch.unique(squares[0].flatten(1), dim=1).flatten().tolist() == [200, 0, 0]


def cut_images(folder: Path) -> None:
    path, _ = write_pair(folder)
    path.write_bytes(path.read_bytes()[:50])


def cut_header(folder: Path) -> None:
    path, _ = write_pair(folder)
    path.write_bytes(path.read_bytes()[:7])


def swap(folder: Path) -> None:
    images, labels = write_pair(folder)
    images.write_bytes(labels.read_bytes() + bytes(20))


def cut_packed(folder: Path) -> None:
    path, _ = write_pair(folder, packed=True, images=250)
    path.write_bytes(path.read_bytes()[:-9])


def no_labels(folder: Path) -> None:
    write_pair(folder)[1].unlink()


def fewer_labels(folder: Path) -> None:
    _, labels = write_pair(folder)
    labels.write_bytes(idx(0x801, 5, content=bytes(5)))


def label_too_large(folder: Path) -> None:
    _, labels = write_pair(folder)
    labels.write_bytes(idx(0x801, 6, content=bytes([0, 0, 10, 0, 0, 0])))


def cut_cifar(folder: Path) -> None:
    write_cifar(folder / "data_batch_1.bin", bytes(2))
    path = folder / "data_batch_1.bin"
    path.write_bytes(path.read_bytes()[:-1])


def cifar_100(folder: Path) -> None:
    write_cifar(folder / "data_batch_1.bin", bytes([3, 77]))


def other_size(folder: Path) -> None:
    write_cifar(folder / "data_batch_1.bin", bytes(2))


def nothing(folder: Path) -> None:
    (folder / "readme.txt").write_text("")


def few_folders(folder: Path) -> None:
    write_classes(folder, cat=1, dog=1)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (cut_images, "images-idx3-ubyte' ends at byte 50, its header says 112. Fetch it again"),
        (cut_header, "images-idx3-ubyte' ends at byte 7, within its header"),
        (swap, "images-idx3-ubyte' begins at byte 0 with 0x0801, IDX of its kind with 0x0803"),
        (cut_packed, r"images-idx3-ubyte.gz' cannot be unpacked after unpacked byte \d+: "),
        (no_labels, "cannot read '.*labels-idx1-ubyte.gz': No such file or directory. Put it there"),
        (fewer_labels, "has 6 images, '.*labels-idx1-ubyte' 5 labels"),
        (label_too_large, "have labels above 9, the task has 10 classes. Set 'classes'"),
        (cut_cifar, "data_batch_1.bin' ends at byte 6145, within the image at byte 3073"),
        (cifar_100, "data_batch_1.bin' has no label of CIFAR-10, which are 0 to 9, at byte 3073"),
        (other_size, "are 3×32×32, the task takes 1×4×4. Set 'channels' and 'size'"),
        (nothing, "no images in .*Put there IDX files"),
        (few_folders, "has 2 class folders, the task 10 classes. Set 'classes', or give a class without images"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_files_are_named_with_place_and_cure(
    tmp_path: Path, damage: Callable[[Path], None], complaint: str
) -> None:
    damage(tmp_path)
    with pytest.raises(DataError, match=complaint) as caught:
        grey(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read images from .*Name a folder that is there"):
        grey(tmp_path / "gone")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("kept", [0, 30, 0.6], ids=["empty", "header", "half"])
def test_a_corrupt_image_file_is_named(tmp_path: Path, suffix: str, kept: float) -> None:
    write_classes(tmp_path, cat=2)
    path = tmp_path / "cat" / f"9.{suffix}"
    noise = torch.randint(256, (3000,), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    Image.frombytes("RGB", (40, 25), bytes(noise.tolist())).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    images = open_images(tmp_path, test=False, classes=1, channels=3, size=8)
    images.squares(torch.tensor([0, 1]), 8)
    with pytest.raises(DataError, match=rf"9.{suffix}' cannot be decoded, read to byte \d+: .*Replace it"):
        images.squares(torch.tensor([2]), 8)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", []),
        ("0/3", [0, 3, 6, 9]),
        ("2/3", [2, 5, 8]),
        ("4-7", [4, 5, 6, 7]),
        ("1-2/5", [1, 2, 6, 7]),
        ("8-100", [8, 9]),
    ],
)
def test_shares_name_indices(line: str, expected: list[int]) -> None:
    assert chosen(line, torch.arange(10)).nonzero().flatten().tolist() == expected


@pytest.mark.parametrize("line", ["3", "a/3", "3/3", "0/0", "5-4", "1-3/3", "-1/3", "0/3 ", "1/2/3"])
def test_other_shares_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="share"):
        chosen(line, torch.arange(10))


@given(sites=st.integers(1, 9), samples=st.integers(0, 200))
def test_parts_share_out_everything_once(sites: int, samples: int) -> None:
    own = torch.stack([chosen(f"{site}/{sites}", torch.arange(samples)) for site in range(sites)])
    assert (own.sum(dim=0) == 1).all()


def test_a_folder_says_what_is_its_sites(tmp_path: Path) -> None:
    assert read_share(tmp_path)[0] == tmp_path
    (tmp_path / "share.json").write_text(json.dumps({"of": "../all", "part": "1/3", "labels": [0, 2]}))
    files, share = read_share(tmp_path)
    assert files.resolve() == tmp_path.parent / "all"
    assert (share.part, share.labels, share.site) == ("1/3", (0, 2), None)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"part": "3/3"}', "share.json': part: .*is empty"),
        ('{"parts": "0/3"}', "share.json': parts: unknown setting; known are of, part, labels, site"),
        ("{", "share.json': Invalid JSON"),
    ],
    ids=["empty", "unknown", "no JSON"],
)
def test_a_wrong_share_is_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "share.json").write_text(text)
    with pytest.raises(DataError, match=complaint) as caught:
        read_share(tmp_path)
    assert "\n" not in str(caught.value)


@given(seed=st.integers(0, 2**63), samples=st.integers(1, 40), start=st.integers(0, 200), cut=st.integers(0, 50))
def test_a_draw_depends_on_seed_and_number_alone(seed: int, samples: int, start: int, cut: int) -> None:
    whole = Order(seed, samples).draw(start, 50)
    again = Order(seed, samples)
    assert torch.equal(whole, torch.cat((again.draw(start, cut), again.draw(start + cut, 50 - cut))))
    epoch = Order(seed, samples).draw(3 * samples, samples)
    assert epoch.sort().values.tolist() == list(range(samples))


VIEW = View(size=6, margin=2, mirror=True, mean=0.25, std=0.5)


def pictures(count: int = 5) -> Stored:
    pixels = torch.randint(256, (count, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Stored(pixels, torch.arange(count))


def test_a_batch_is_the_same_whatever_the_sizes_before_it() -> None:
    images, every = pictures(), torch.arange(5)
    whole = ImageLoader(images, every, VIEW, seed=3).batch(11, MODEL)
    loader = ImageLoader(images, every, VIEW, seed=3)
    parts = [loader.batch(size, MODEL) for size in (1, 4)]
    parts.append(ImageLoader(images, every, VIEW, seed=3, cursor=loader.cursor).batch(6, MODEL))
    assert torch.equal(whole.inputs, torch.cat([part.inputs for part in parts]))
    assert torch.equal(whole.targets, torch.cat([part.targets for part in parts]))
    assert whole.tokens == 11
    assert not torch.equal(whole.inputs, ImageLoader(images, every, VIEW, seed=4).batch(11, MODEL).inputs)


def test_training_moves_and_mirrors_and_nothing_else() -> None:
    images = pictures()
    batch = ImageLoader(images, torch.arange(5), VIEW, seed=0).batch(400, MODEL)
    seen = set()
    for given_input, label in zip(batch.inputs, batch.targets, strict=True):
        pixels = (given_input * 0.5 + 0.25).mul(255).round().to(torch.uint8)
        seen.add(_move(images.squares(label[None], 10)[0], pixels))
    assert len(seen) == 2 * 5 * 5, "every move comes up"


def _move(square: Tensor, pixels: Tensor) -> tuple[int, int, bool]:
    for top in range(5):
        for left in range(5):
            cut = square[:, top : top + 6, left : left + 6]
            for mirrored, expected in ((False, cut), (True, cut.flip(-1))):
                if torch.equal(expected, pixels):
                    return top, left, mirrored
    raise AssertionError("no move of the image looks like this")


def test_evaluation_sees_the_image_itself() -> None:
    images = pictures()
    seen = VIEW.middle(images, torch.tensor([4]))
    torch.testing.assert_close(seen, (images.pixels[4:].float() / 255 - 0.25) / 0.5)


def test_fashion_mnist_ships() -> None:
    images = open_images(shipped("fashion-mnist-sprite"), test=False, classes=10, channels=1, size=28)
    assert torch.bincount(images.labels).tolist() == [90] * 10
    held_out = images.labels[chosen("75-89/90", torch.arange(900))]
    assert torch.bincount(held_out).tolist() == [15] * 10
    assert (shipped("fashion-mnist-sprite") / "LICENSE.txt").read_text().startswith("The MIT License")
    with pytest.raises(ValueError, match="no data set 'imagenet' ships; there are cora, fashion-mnist-sprite"):
        shipped("imagenet")
