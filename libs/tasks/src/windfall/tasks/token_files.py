"""Text that has been made into tokens: raw little-endian files, as nanoGPT's and Megatron's tools write them, each with
a small JSON beside it.

``name.bin`` holds nothing but tokens, and ``name.json`` says what they are::

    {"dtype": "uint16", "vocabulary": 50304, "tokens": 9036044, "tokenizer_sha256": "…"}

The last two may be left out. A file is mapped into memory and read once, at the start, to see that it is sound.
"""

from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from windfall.tasks.task import DataError
from windfall.tasks.text import Tokens

LOOK: Final = 1 << 22
"""Tokens that are looked at in one go."""


class TokenFile(BaseModel):
    """What the JSON beside a token file says."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    dtype: Literal["uint16", "uint32"]
    vocabulary: int = Field(ge=1)
    """Every token is below this."""
    tokens: int | None = Field(default=None, ge=0)
    """How many there are, so that a file that was cut off is noticed."""
    tokenizer_sha256: str = ""
    """Of the tokenizer's file, when it is known."""


def read_token_file(path: Path, vocabulary: int, tokenizer_sha256: str = "") -> Tokens:
    """Map a token file into memory.

    Args:
        vocabulary: how many tokens the model knows.
        tokenizer_sha256: of the federation's tokenizer; empty when it has none.

    Raises:
        DataError: the file or its JSON is missing, unreadable, of another vocabulary or tokenizer, or corrupt; the line
            names the file and, for damage, the byte.
    """
    about = _about(path.with_suffix(".json"))
    if about.vocabulary > vocabulary:
        raise DataError(
            f"{path} has a vocabulary of {about.vocabulary}, the model one of {vocabulary}. Use one of both"
        )
    if tokenizer_sha256 and about.tokenizer_sha256 and about.tokenizer_sha256 != tokenizer_sha256:
        raise DataError(f"{path} was made with another tokenizer than the federation's. Encode the text again with it")
    dtype = np.dtype(about.dtype).newbyteorder("<")
    try:
        size = path.stat().st_size
        count, rest = divmod(size, dtype.itemsize)
        if rest:
            raise DataError(f"{path} ends at byte {size} within a {about.dtype} token. Write it again: it was cut off")
        if about.tokens is not None and about.tokens != count:
            raise DataError(
                f"{path} ends at byte {size}, its JSON promises {about.tokens * dtype.itemsize} bytes. Write it again"
            )
        tokens: Tokens = np.memmap(path, dtype, mode="r") if count else np.empty(0, dtype)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}. Make it readable") from error
    for begin in range(0, count, LOOK):
        outside = tokens[begin : begin + LOOK] >= about.vocabulary
        if outside.any():
            at = begin + int(outside.argmax())
            raise DataError(
                f"{path} at byte {at * dtype.itemsize}: token {int(tokens[at])} is outside the vocabulary of "
                f"{about.vocabulary}. Write the file again, or mend its JSON"
            )
    return tokens


def write_token_file(path: Path, tokens: Tokens, vocabulary: int, tokenizer_sha256: str = "") -> None:
    """Write tokens in [0, ``vocabulary``) to ``path``, which ends in ``.bin``, and the JSON beside it."""
    dtype: Literal["uint16", "uint32"] = "uint16" if vocabulary <= 1 << 16 else "uint32"
    tokens.astype(np.dtype(dtype).newbyteorder("<")).tofile(path)
    about = TokenFile(dtype=dtype, vocabulary=vocabulary, tokens=len(tokens), tokenizer_sha256=tokenizer_sha256)
    path.with_suffix(".json").write_text(about.model_dump_json() + "\n")


def _about(path: Path) -> TokenFile:
    try:
        return TokenFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(
            f'cannot read {path}: {error.strerror}. Write {{"dtype": "uint16", "vocabulary": …}} there'
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "its text"
        raise DataError(f"{path} does not describe a token file: {place}: {first['msg']}") from error
