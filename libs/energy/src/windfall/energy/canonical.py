"""JSON in its one canonical form, byte for byte: the JSON Canonicalization Scheme, RFC 8785.

No whitespace, members sorted by the UTF-16 code units of their names, strings in UTF-8 with no escape that is not
needed, and numbers as ECMAScript writes a double: the shortest digits that read back as the same one.
"""

import math
from json import JSONEncoder
from typing import Final

_quoted: Final = JSONEncoder(ensure_ascii=False).encode
"""A string in its quotes, with no escape that is not needed."""


def canonical(value: object) -> bytes:
    """The canonical bytes of a value as ``json.loads`` gives it.

    Raises:
        ValueError: it cannot be said in I-JSON: a number that is no finite double, a lone surrogate, a name that is no
            string, or something that is not JSON at all.
    """
    return _written(value).encode("utf-8")


def _written(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return number(value)
        case float():
            return number(value)
        case str():
            return _quoted(value)
        case list() | tuple():
            return f"[{','.join(map(_written, value))}]"
        case dict():
            return f"{{{','.join(_members(value))}}}"
    raise ValueError(f"{type(value).__name__} is not JSON")


def _members(members: dict[object, object]) -> list[str]:
    names = [name for name in members if isinstance(name, str)]
    if len(names) != len(members):
        raise ValueError("the names of members are strings")
    names.sort(key=lambda name: name.encode("utf-16-be"))
    return [f"{_written(name)}:{_written(members[name])}" for name in names]


def number(value: float) -> str:
    """A double as ``Number::toString`` of ECMA-262 (2024, section 6.1.6.1.20) writes it.

    Raises:
        ValueError: it is not finite.
    """
    try:
        value = float(value)
    except OverflowError as error:
        raise ValueError("an integer that no double is near to is not a number of JSON") from error
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a number of JSON")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    # Python's repr has the same shortest digits; only its layout differs.
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    return sign + _laid_out(digits, point)


def _laid_out(digits: str, point: int) -> str:
    """``0.digits`` times ten to the ``point``."""
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if count > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"
