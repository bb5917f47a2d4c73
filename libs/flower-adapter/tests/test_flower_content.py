"""Contents travel bit for bit, and what is none is refused."""

import json
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.flower_adapter.content import HEADER_BYTES, Unreadable, pack, unpack

whole = st.integers(-(2**63), 2**63 - 1)
real = st.floats(allow_nan=False)
scalars = st.one_of(whole, real, st.text(max_size=9), st.binary(max_size=9), st.booleans())
lists = st.one_of(
    st.lists(whole),
    st.lists(real),
    st.lists(st.text(max_size=5)),
    st.lists(st.binary(max_size=5)),
    st.lists(st.booleans()),
)
names = st.text(max_size=6)
arrays = st.one_of(
    st.lists(st.floats(width=32), max_size=5).map(lambda values: Array(np.array(values, np.float32))),
    st.binary(max_size=20).map(lambda data: Array(dtype="zip", shape=(3,), stype="somebody.else", data=data)),
)
records = st.one_of(
    st.dictionaries(names, arrays, max_size=3).map(ArrayRecord),
    st.dictionaries(names, st.one_of(whole, real, st.lists(whole), st.lists(real)), max_size=3).map(MetricRecord),
    st.dictionaries(names, st.one_of(scalars, lists), max_size=3).map(ConfigRecord),
)
contents = st.dictionaries(names, records, max_size=3).map(RecordDict)


@settings(deadline=None)
@given(contents)
def test_a_content_comes_back(content: RecordDict) -> None:
    packed = pack(content)
    body = b"".join(packed.pieces)
    assert packed.body_bytes == len(body)
    back = unpack(packed.header, body)
    assert list(back.items()) == list(content.items())
    assert pack(back).header == packed.header
    for name, record in content.items():
        for key, value in record.items():
            assert type(back[name][key]) is type(value)


anything: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), whole, st.floats(), st.text(max_size=8), st.just("arrays"), st.just("config")),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(st.binary(max_size=60), anything.map(lambda value: json.dumps(value).encode())), st.binary(max_size=40)
)
def test_nonsense_is_refused_in_one_way(header: bytes, body: bytes) -> None:
    try:
        content = unpack(header, body)
    except Unreadable:
        return
    assert pack(content).body_bytes == len(body)


@settings(deadline=None)
@given(contents, st.data())
def test_a_header_that_was_tampered_with_is_refused_or_means_as_many_bytes(
    content: RecordDict, data: st.DataObject
) -> None:
    packed = pack(content)
    at = data.draw(st.integers(0, len(packed.header) - 1))
    header = packed.header[:at] + data.draw(st.binary(min_size=1, max_size=1)) + packed.header[at + 1 :]
    body = b"".join(packed.pieces)
    try:
        back = unpack(header, body)
    except Unreadable:
        return
    assert pack(back).body_bytes == len(body)


def header(shape: list[int], dtype: str, nbytes: int) -> bytes:
    return json.dumps([["arrays", "a", [["w", dtype, shape, "numpy.ndarray", nbytes]]]]).encode()


NPY = Array(np.arange(4, dtype=np.float32)).data


@pytest.mark.parametrize(
    ("head", "body", "text"),
    [
        (header([10**12], "float32", len(NPY)), NPY, "its npy header does not"),
        (header([4], "object", len(NPY)), NPY, "a dtype that"),
        (header([4], "float32", len(NPY) + 1), NPY, "bytes where"),
        (header([4], "float32", -1), NPY, "bytes where"),
        (header([4], "float32", len(NPY)), NPY + b"\0", "of which the header names"),
        (b"[" * 100_000, b"", "nested too deep"),
        (b" " * (HEADER_BYTES + 1), b"", "a header of"),
    ],
    ids=["bomb", "pickle", "long", "negative", "left-over", "deep", "large"],
)
def test_what_is_not_what_it_says_is_refused(head: bytes, body: bytes, text: str) -> None:
    with pytest.raises(Unreadable, match=text):
        unpack(head, body)


def test_a_header_that_is_too_long_does_not_set_out() -> None:
    with pytest.raises(ValueError, match="use arrays"):
        pack(RecordDict({"c": ConfigRecord({"text": "x" * HEADER_BYTES})}))
