"""Frames past protobuf are protobuf's own bytes, and what they are not is left to protobuf."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.v1 import training_pb2 as pb
from windfall.servicekit.frames import framed, unframed

DATA = pb.PushFrame.DATA_FIELD_NUMBER


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 512 * 1024, 2**21])
def test_a_frame_is_what_protobuf_writes_and_reads(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    message = framed(DATA, memoryview(data))
    assert message == pb.PushFrame(data=data).SerializeToString()
    assert bytes(unframed(DATA, message) or b"") == pb.PushFrame.FromString(message).data == data


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda rest: b"\x12" + rest))
def test_whatever_arrives_is_read_as_protobuf_reads_it_or_left_to_it(message: bytes) -> None:
    data = unframed(DATA, message)
    if data is not None:
        try:
            frame = pb.PushFrame.FromString(message)
        except DecodeError as error:
            raise AssertionError("protobuf refuses what was taken") from error
        assert (frame.WhichOneof("kind"), frame.data) == ("data", bytes(data))


@pytest.mark.parametrize(
    "frame", [pb.PushFrame(), pb.PushFrame(manifest=pb.Manifest(steps=3)), pb.PullFrame(data=b"another field")]
)
def test_other_messages_are_left_to_protobuf(frame: pb.PushFrame | pb.PullFrame) -> None:
    assert unframed(DATA, frame.SerializeToString()) is None


def test_two_fields_in_one_message_are_left_to_protobuf() -> None:
    assert unframed(DATA, framed(DATA, b"one") + framed(DATA, b"two")) is None


@pytest.mark.parametrize("number", [0, 16])
def test_only_numbers_whose_tag_is_one_byte_are_framed(number: int) -> None:
    with pytest.raises(ValueError, match="field number"):
        framed(number, b"")
