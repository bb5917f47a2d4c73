import struct
import tracemalloc
import zlib
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.lowcomm.compressor import COMPRESSORS
from windfall.lowcomm.contribution import decode, read, write
from windfall.lowcomm.sections import Sections, squeeze
from windfall.lowcomm.sparse import Contribution, Sparse
from windfall.lowcomm.wire import CODEC_IDS, HEADER_BYTES, MAX_ELEMENTS, Header, compose, parse

GOLDEN = Path(__file__).parent / "golden"
ELEMENTS = 9001
headers = st.builds(
    Header,
    codec=st.sampled_from(sorted(CODEC_IDS)),
    fragment=st.integers(0, 2**32 - 1),
    elements=st.integers(0, MAX_ELEMENTS),
    base=st.integers(0, 2**64 - 1),
    tokens=st.integers(0, 2**64 - 1),
    steps=st.integers(0, 2**32 - 1),
)


def gradient() -> torch.Tensor:
    """Long-tailed numbers without a random generator, so that they are the same for ever."""
    index = np.arange(ELEMENTS, dtype=np.int64)
    mixed = (index * index * 65537 + index * 40503) % 1000003 - 500001
    return torch.from_numpy((mixed / 500001.0) ** 5).float()


def message(codec: str) -> bytes:
    compressor = COMPRESSORS[codec]()
    _, data = write(
        compressor, compressor.init(ELEMENTS), gradient(), fragment=3, base=41, tokens=123_456_789_012, steps=500
    )
    return data


def dense(contribution: Contribution) -> torch.Tensor:
    return contribution.dense() if isinstance(contribution, Sparse) else contribution


def sealed(data: bytes) -> bytes:
    """With its length and checksum made right, as somebody who means harm would."""
    fixed = data[:40] + struct.pack("<I", max(0, len(data) - HEADER_BYTES))
    return fixed + struct.pack("<I", zlib.crc32(data[HEADER_BYTES:], zlib.crc32(fixed))) + data[HEADER_BYTES:]


@given(header=headers, payload=st.binary(max_size=100))
def test_what_is_composed_is_parsed(header: Header, payload: bytes) -> None:
    found, view = parse(compose(header, payload))
    assert (found, bytes(view)) == (header, payload)
    assert view.readonly


def test_the_header_byte_by_byte() -> None:
    data = compose(Header("topk-ef", fragment=3, elements=5, base=7, tokens=9, steps=11), b"xyz")
    assert data[:44].hex(" ", -4) == (
        "57464c43 01060000 03000000 0b000000 05000000 00000000 07000000 00000000 09000000 00000000 03000000"
    )
    assert data[44:48] == struct.pack("<I", zlib.crc32(data[:44] + b"xyz")) and data[48:] == b"xyz"


@pytest.mark.parametrize(
    ("at", "new", "why"),
    [
        (0, b"X", "begins with"),
        (4, b"\2", "version 2"),
        (5, b"\0", "codec 0"),
        (5, b"\xff", "codec 255"),
        (6, b"\1", "flags 0x0001"),
        (16, b"\xff" * 8, "at most 2147483648 elements"),
        (16, struct.pack("<Q", 10_001), "at most 10000 elements"),
        (40, b"\xff" * 4, "announces 4294967295 bytes"),
        (40, b"\0" * 4, "damaged"),
        (44, b"\0" * 4, "damaged"),
        (32, b"\xff", "damaged"),
        (60, b"\xff", "damaged"),
    ],
)
def test_a_wrong_field_is_refused(at: int, new: bytes, why: str) -> None:
    data = message("topk-ef")
    limit = MAX_ELEMENTS if "2147483648" in why else 10_000
    with pytest.raises(ValueError, match=why):
        parse(data[:at] + new + data[at + len(new) :], max_elements=limit)


@pytest.mark.parametrize(
    "data",
    [message("bf16")[:-1], message("bf16") + b"\0", message("bf16")[:47], b""],
    ids=["torn", "followed", "half a header", "nothing"],
)
def test_a_message_cut_short_or_followed_by_more_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"announces|at least 48"):
        parse(data)


@pytest.mark.parametrize("field", ["fragment", "elements", "base", "tokens", "steps"])
@pytest.mark.parametrize("value", [-1, 2**64])
def test_a_header_holds_only_what_fits(field: str, value: int) -> None:
    numbers = {"fragment": 0, "elements": 0, "base": 0, "tokens": 0, "steps": 0}
    with pytest.raises(ValueError, match=field):
        Header("fp32", **{**numbers, field: value})
    with pytest.raises(ValueError, match="unknown codec"):
        Header("fp31", **numbers)


DIGESTS = {
    "fp32": "b050a4875776b5428bffd213049225086ea54ee6333a312578b64da92315e943",
    "bf16": "7736304414a9eadac9ccbac804dd657fe5b4701f826b48252176c834b8a7b523",
    "int8-block": "1ee984253ba43337a2ab3a867db982c891186595a8ad64643c2cda8d8d5b79e5",
    "int4-block": "80576a558a17c59a4474a80d324fc9a1471e83dc6961254eaf702a156b10de02",
    "q2-ef": "c0a4440bf1d201b5c0cd6ca845b6a950c2c24a9714857e57aa9e34214a1b4238",
    "topk-ef": "eccdbeececc00ecb18626a0828d63d35118b103b54c5dd69102e149e693a0965",
    "dct-momentum": "fe23109fba3d3d0cb80081aec4f206eef07ce1079700b7d8b707abff77a38157",
}


@pytest.mark.parametrize("codec", CODEC_IDS)
def test_golden_messages_are_read_for_ever(codec: str) -> None:
    """A file here is never written again: a codec whose payload changes gets a new number and a new file."""
    header, contribution = read((GOLDEN / f"{codec}.wflc").read_bytes())
    assert header == Header(codec, fragment=3, elements=ELEMENTS, base=41, tokens=123_456_789_012, steps=500)
    assert sha256(dense(contribution).numpy().astype("<f4").tobytes()).hexdigest() == DIGESTS[codec]
    # Written anew it says the same; other builds of zlib may say it in other bytes.
    torch.testing.assert_close(dense(read(message(codec))[1]), dense(contribution), rtol=0.04, atol=1e-3)


@pytest.mark.parametrize("codec", CODEC_IDS)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_mutated_message_is_refused_or_means_something(codec: str, data: st.DataObject) -> None:
    mutated = bytearray(message(codec))
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "length"]))
        # The beginning of a payload holds its settings: look there more often.
        at = data.draw(st.integers(0, len(mutated) - 1) | st.integers(0, min(80, len(mutated) - 1)))
        if kind == "flip":
            mutated[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del mutated[max(at, 1) : at + data.draw(st.integers(1, 20))]
        elif kind == "insert":
            mutated[at:at] = data.draw(st.binary(min_size=1, max_size=20))
        elif len(mutated) >= 24:
            mutated[16:24] = struct.pack("<Q", data.draw(st.integers(0, 2 * ELEMENTS)))
    survives(sealed(bytes(mutated)))


@settings(deadline=None, max_examples=300)
@given(codec=st.sampled_from(sorted(CODEC_IDS)), elements=st.integers(0, 20_000), payload=st.binary(max_size=300))
def test_random_bytes_are_refused_or_mean_something(codec: str, elements: int, payload: bytes) -> None:
    survives(compose(Header(codec, 0, elements, 0, 0, 0), payload))
    survives(payload)


def survives(data: bytes) -> None:
    """It is refused with a ValueError, or is a finite contribution of the length that its header says."""
    try:
        header, contribution = read(data, max_elements=20_000)
    except ValueError:
        return
    values = dense(contribution)
    assert values.shape == (header.elements,) and bool(values.isfinite().all())
    if isinstance(contribution, Sparse):
        assert (np.diff(contribution.positions, prepend=-1) > 0).all()


def peak_bytes(codec: str, payload: bytes, elements: int) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            decode(codec, payload, elements)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def bomb(size: int) -> bytes:
    """A DEFLATE stream with matches: a thousandfold of what it takes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(size)) + packer.flush()
    return struct.pack("<I", len(packed)) + packed


def test_a_bomb_is_refused_before_it_grows() -> None:
    elements = 2**31
    head = struct.pack("<HHB", 4096, 64, 2)
    assert peak_bytes("topk-ef", head + bomb(elements // 64), elements) < 2**20
    assert peak_bytes("topk-ef", head + bomb(100_000), 64 * 1000) < 2**20
    assert peak_bytes("q2-ef", bytes(8) + bomb(1024), 4096) < 2**16
    assert peak_bytes("q2-ef", b"", elements) < 2**16
    assert peak_bytes("int4-block", b"", elements) < 2**16


@given(data=st.binary(max_size=2000))
def test_a_squeezed_section_comes_back_and_never_grows_by_more_than_its_length(data: bytes) -> None:
    packed = squeeze(data)
    assert len(packed) <= len(data) + 4
    sections = Sections(packed + b"!")
    assert sections.squeezed(len(data), len(data)).tobytes() == data
    assert sections.raw(1, "u1").tobytes() == b"!"
    sections.end()
