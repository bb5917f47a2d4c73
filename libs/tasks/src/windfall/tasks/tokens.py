"""Tokens of text: a byte-level BPE tokenizer that is trained on one's own text, and a folder's text or token files as
one corpus.

A tokenizer is one file of the ``tokenizers`` library. Sites that train together share it: the task's settings carry its
SHA-256, and :mod:`windfall.tasks.tokens` as a command prints them::

    python -m windfall.tasks.tokens train FOLDER --vocabulary 1024 --out tokenizer.json
    python -m windfall.tasks.tokens encode FOLDER --tokenizer tokenizer.json --out text.bin
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from windfall.tasks.task import DataError
from windfall.tasks.text import VOCABULARY, Corpus, Tokens, list_files, read_text, text_corpus
from windfall.tasks.token_files import read_token_file, write_token_file

MOST_TOKENS: Final = 1 << 24
"""Of a vocabulary: far above any that is trained with, and far below what would fill memory."""
PIECE: Final = 1 << 20
"""Characters after which text is cut at the end of a line, to encode and train piece by piece."""


@dataclass(frozen=True, eq=False)
class BytePairs:
    """A byte-level BPE tokenizer (arXiv 1508.07909 over bytes, as GPT-2 has it) and what its file hashes to."""

    tokenizer: Tokenizer
    sha256: str
    octets: npt.NDArray[np.int64]
    """``[vocabulary]``: bytes that each token stands for; 0 for special ones."""

    @property
    def vocabulary(self) -> int:
        return len(self.octets)

    def encode(self, text: str) -> Tokens:
        """Tokens of a text. A piece begins a line, so that what is encoded depends on the text alone."""
        ids = [np.array(self.tokenizer.encode(piece, add_special_tokens=False).ids, np.uint32) for piece in cut(text)]
        return np.concatenate([np.empty(0, np.uint32), *ids])


def train(text: str, vocabulary: int) -> Tokenizer:
    """Merge the most frequent pair of tokens, from 256 bytes on, until there are ``vocabulary`` of them (or no pair
    that is seen twice)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(cut(text), trainer)
    return tokenizer


def read_tokenizer(path: Path, sha256: str = "") -> BytePairs:
    """A tokenizer from its file.

    Args:
        sha256: what the file must hash to, in lower-case hexadecimal; empty for whatever it does.

    Raises:
        DataError: the file is missing, another one, or holds no byte-level tokenizer.
    """
    try:
        whole = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the tokenizer {path}: {error.strerror}. Put the federation's there") from error
    found = hashlib.sha256(whole).hexdigest()
    if sha256 and found != sha256:
        raise DataError(f"tokenizer {path} has SHA-256 {found}, the federation's has {sha256}. Copy it from there")
    try:
        tokenizer = Tokenizer.from_buffer(whole)
    except ValueError as error:
        raise DataError(f"{path} is no tokenizer: {error}") from error
    return BytePairs(tokenizer, found, _octets(tokenizer, path))


def read_corpus(folder: Path, context: int, vocabulary: int, tokenizer: Path | None, tokenizer_sha256: str) -> Corpus:
    """A folder's ``*.bin`` token files, or its ``*.txt`` files as tokens or, without a tokenizer, as bytes.

    Raises:
        DataError: there is nothing to train on, both kinds, or something corrupt; or the tokenizer is not the one, or
            knows more tokens than the model.
    """
    pairs = None if tokenizer is None else read_tokenizer(tokenizer, tokenizer_sha256)
    if pairs is not None and pairs.vocabulary > vocabulary:
        raise DataError(f"tokenizer {tokenizer} has {pairs.vocabulary} tokens, the model {vocabulary}. Set vocabulary")
    files = list_files(folder, ".bin")
    if not files:
        text = read_text(folder)
        if pairs is None:
            return text_corpus(folder, np.frombuffer(text, np.uint8), context, np.ones(VOCABULARY, np.int64))
        return text_corpus(folder, pairs.encode(_decoded(text, folder)), context, pairs.octets)
    if list_files(folder, ".txt"):
        raise DataError(f"{str(folder)!r} holds *.txt and *.bin files. Leave one kind there")
    sha256 = "" if pairs is None else pairs.sha256
    stretches = [read_token_file(path, vocabulary if pairs is None else pairs.vocabulary, sha256) for path in files]
    roomy = tuple(stretch for stretch in stretches if len(stretch) > context)
    if not roomy:
        raise DataError(f"no *.bin file in {str(folder)!r} has the {context + 1} tokens of a window. Add more text")
    return Corpus(roomy, context, None if pairs is None else pairs.octets)


def cut(text: str) -> Iterator[str]:
    """Pieces of about ``PIECE`` characters, each but the last up to the end of a line."""
    begin = 0
    while begin < len(text):
        line = text.find("\n", begin + PIECE)
        end = len(text) if line < 0 else line + 1
        yield text[begin:end]
        begin = end


def _octets(tokenizer: Tokenizer, path: Path) -> npt.NDArray[np.int64]:
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    known = tokenizer.get_vocab()
    if (last := max(known.values(), default=-1)) >= MOST_TOKENS:
        raise DataError(f"{path} has a token {last}, and a vocabulary ends below {MOST_TOKENS}. Train one without gaps")
    octets = np.zeros(last + 1, np.int64)
    added = tokenizer.get_added_tokens_decoder()
    for token, number in known.items():
        if number in added:
            octets[number] = 0 if added[number].special else len(token.encode())
        elif alphabet.issuperset(token):  # one character of the alphabet for each byte
            octets[number] = len(token)
        else:
            raise DataError(f"{path} is no byte-level tokenizer: a token of it is not made of bytes. Train one")
    return octets


def _decoded(text: bytes, folder: Path) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"text in {str(folder)!r} is not UTF-8 at byte {error.start}. Convert it, or go without a tokenizer"
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status is 2 for a person's mistake."""
    parser = argparse.ArgumentParser(prog="python -m windfall.tasks.tokens", description="Tokenizers and token files.")
    commands = parser.add_subparsers(dest="command", required=True)
    trains = commands.add_parser("train", help="train a byte-level BPE tokenizer on a folder of *.txt files")
    trains.add_argument("folder", type=Path)
    trains.add_argument("--vocabulary", type=int, default=1024, help="how many tokens, at least 256")
    trains.add_argument("--out", type=Path, default=Path("tokenizer.json"))
    encodes = commands.add_parser("encode", help="write a folder of *.txt files as one token file")
    encodes.add_argument("folder", type=Path)
    encodes.add_argument("--tokenizer", type=Path, required=True)
    encodes.add_argument("--out", type=Path, default=Path("text.bin"), help="ends in .bin; a .json comes beside it")
    asked = parser.parse_args(arguments)
    try:
        said = _train(asked) if asked.command == "train" else _encode(asked)
    except (DataError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{said}\n")
    return 0


def _train(asked: argparse.Namespace) -> str:
    if asked.vocabulary < VOCABULARY:
        raise DataError(f"a byte-level vocabulary has at least {VOCABULARY} tokens, not {asked.vocabulary}")
    tokenizer = train(_decoded(read_text(asked.folder), asked.folder), asked.vocabulary)
    tokenizer.save(str(asked.out))
    pairs = read_tokenizer(asked.out)
    settings = {"tokenizer": asked.out.name, "tokenizer_sha256": pairs.sha256, "vocabulary": pairs.vocabulary}
    return json.dumps(settings)


def _encode(asked: argparse.Namespace) -> str:
    if asked.out.suffix != ".bin":
        raise DataError(f"a token file ends in .bin, {asked.out} does not")
    pairs = read_tokenizer(asked.tokenizer)
    tokens = pairs.encode(_decoded(read_text(asked.folder), asked.folder))
    write_token_file(asked.out, tokens, pairs.vocabulary, pairs.sha256)
    return f"{asked.out}: {len(tokens)} tokens of {pairs.vocabulary}"


if __name__ == "__main__":
    sys.exit(main())
