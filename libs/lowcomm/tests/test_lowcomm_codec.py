import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.lowcomm.codec import CODECS

ODD = torch.tensor([0.0, -0.0, 1.0, -2.5, 3.4e38, -1e-45, float("inf"), float("-inf"), float("nan"), 0.1])


@pytest.mark.parametrize("name", CODECS)
@settings(deadline=None)
@given(data=st.data())
def test_any_run_of_whole_elements_decodes_alone(name: str, data: st.DataObject) -> None:
    codec = CODECS[name]
    chunk = torch.tensor(data.draw(st.lists(st.floats(width=32), max_size=50)), dtype=torch.float32)
    begin = data.draw(st.integers(0, chunk.numel()))
    end = data.draw(st.integers(begin, chunk.numel()))
    code = bytes(codec.encode(chunk))
    size = codec.bytes_per_element
    assert len(code) == size * chunk.numel()
    part = code[begin * size : end * size]
    assert bytes(codec.encode(chunk[begin:end])) == part
    torch.testing.assert_close(codec.decode(part), codec.decode(code)[begin:end], rtol=0, atol=0, equal_nan=True)


def test_fp32_is_exact_and_little_endian() -> None:
    code = CODECS["fp32"].encode(ODD)
    assert bytes(code) == struct.pack(f"<{ODD.numel()}f", *ODD.tolist())
    assert torch.equal(CODECS["fp32"].decode(code).view(torch.int32), ODD.view(torch.int32))


def test_bf16_is_what_torch_calls_bfloat16() -> None:
    code = CODECS["bf16"].encode(ODD)
    torch.testing.assert_close(CODECS["bf16"].decode(code), ODD.bfloat16().float(), rtol=0, atol=0, equal_nan=True)
    assert bytes(CODECS["bf16"].encode(torch.tensor([1.0]))) == b"\x80\x3f"


def test_bf16_decodes_to_what_it_encodes_again() -> None:
    once = CODECS["bf16"].decode(CODECS["bf16"].encode(torch.randn(1001, generator=torch.Generator().manual_seed(1))))
    assert torch.equal(CODECS["bf16"].decode(CODECS["bf16"].encode(once)), once)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_a_chunk_decoded_from_read_only_bytes_has_memory_of_its_own(name: str, kind: type[bytes]) -> None:
    code = bytes(CODECS[name].encode(torch.ones(4)))
    source = kind(code)
    chunk = CODECS[name].decode(source)
    chunk.mul_(2)
    assert bytes(source) == code


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("special", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_seen_without_decoding(name: str, special: float) -> None:
    values = torch.full((1000,), 3e38)
    assert CODECS[name].finite(CODECS[name].encode(values)), "a sum that overflows is no reason to refuse"
    values[777] = special
    assert not CODECS[name].finite(CODECS[name].encode(values))


@pytest.mark.parametrize("name", CODECS)
def test_torn_elements_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not whole elements"):
        CODECS[name].decode(b"\0" * 5)
    assert CODECS[name].decode(b"").shape == (0,)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("chunk", [torch.ones(2, 2), torch.ones(2, dtype=torch.float64), torch.ones(4)[::2]])
def test_only_contiguous_vectors_are_encoded(name: str, chunk: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="contiguous fp32 vector"):
        CODECS[name].encode(chunk)
