"""Bad values in the fields of messages, for tests of whatever reads what others wrote."""

import random
from collections.abc import Callable
from math import inf, nan
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

MIB: Final = 2**20

TEXTS: Final = (
    "",
    " ",
    "x" * MIB,
    "é" * (MIB // 2),
    "../../etc/passwd",
    "site-a/../site-b",
    "/",
    "..",
    "\x00",
    "site-a\x00",
    "site-a\n",
    "SITE-A",
    "site-\u0430",
    "\u202esite-a",
    "ｓｉｔｅ-a",
    "site-a ",
    "site-a\u200b",
    "-",
    "*",
    ">",
    "site-b.>",
    "'; DROP TABLE state; --",
    "%s%n{0}${HOME}",
    "hub",
    "nan",
    "🜂" * 999,
    "a" * 48,
    "a" * 49,
    "0" * 64,
    "F" * 64,
)
WHOLE: Final = (
    0,
    1,
    2,
    3,
    2**16,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**40,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
REALS: Final = (nan, inf, -inf, -0.0, -1.0, 1e308, -1e308, 5e-324, 1e6, 1.0000001e6)


_MOST: Final = {
    FieldDescriptor.CPPTYPE_INT32: 2**31 - 1,
    FieldDescriptor.CPPTYPE_INT64: 2**63 - 1,
    FieldDescriptor.CPPTYPE_UINT32: 2**32 - 1,
    FieldDescriptor.CPPTYPE_UINT64: 2**64 - 1,
}


def spoil(message: Any, dice: random.Random, times: int = 1) -> None:
    """Put a bad value into fields of a message, wherever they lie."""
    for _ in range(times):
        field = dice.choice(message.DESCRIPTOR.fields)
        if field.message_type is not None:
            inner = getattr(message, field.name)
            if not field.is_repeated:
                spoil(inner, dice)
            elif dice.random() < 0.3 or not inner:
                del inner[dice.randrange(len(inner) + 1) :]
            elif dice.random() < 0.3:
                inner.extend([inner[0]] * dice.choice((1, 1000)))
            else:
                spoil(dice.choice(inner), dice)
        elif field.is_repeated and field.cpp_type == field.CPPTYPE_STRING:
            getattr(message, field.name).extend(dice.choices(TEXTS, k=dice.choice((1, 2, 9))))
        elif field.is_repeated:
            getattr(message, field.name).extend(dice.choices(WHOLE, k=dice.choice((1, 2, 9))))
        elif field.cpp_type == field.CPPTYPE_STRING:
            setattr(
                message,
                field.name,
                b"\x00" * dice.choice((0, 1, MIB)) if field.type == field.TYPE_BYTES else dice.choice(TEXTS),
            )
        elif field.cpp_type == field.CPPTYPE_BOOL:
            setattr(message, field.name, not getattr(message, field.name))
        elif field.cpp_type == field.CPPTYPE_DOUBLE:
            setattr(message, field.name, dice.choice(REALS))
        else:
            most = 2**31 - 1 if field.enum_type else _MOST[field.cpp_type]
            setattr(message, field.name, min(most, dice.choice(WHOLE)))


def batches(count: int, lie: Callable[[int], None]) -> None:
    """So many batches, each from a seed of its own that is printed when it fails."""

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**64 - 1))
    def lied_from(seed: int) -> None:
        lie(seed)

    lied_from()
