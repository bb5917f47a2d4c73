"""JSON that is written while it is made: what an iterator yields is never held."""

import json
from collections.abc import Iterator, Mapping


def streamed(value: object, indent: str = "") -> Iterator[str]:
    """A document in pieces: a line for each key of an object and for each item of an iterator.

    Raises:
        ValueError: a number that JSON does not have.
    """
    deeper = indent + " "
    if isinstance(value, Mapping):
        opening, closing = "{", "}"
        parts: Iterator[tuple[str, object]] = ((f"{json.dumps(str(key))}: ", each) for key, each in value.items())
    elif isinstance(value, Iterator):
        opening, closing = "[", "]"
        parts = (("", each) for each in value)
    else:
        yield json.dumps(value, allow_nan=False)
        return
    empty = True
    for name, each in parts:
        yield f"{opening if empty else ','}\n{deeper}{name}"
        empty = False
        if opening == "[":
            yield json.dumps(each, allow_nan=False)
        else:
            yield from streamed(each, deeper)
    yield opening + closing if empty else f"\n{indent}{closing}"
