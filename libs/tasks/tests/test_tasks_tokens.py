import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from windfall.tasks.gpt_neox import gpt_neox
from windfall.tasks.task import DataError
from windfall.tasks.text import Corpus, Tokens
from windfall.tasks.token_files import read_token_file, write_token_file
from windfall.tasks.tokens import cut, main, read_corpus, read_tokenizer, train

VERSE = "The wind blows where it will;\n\nžák 風 and you hear its sound.\n" * 30
SMALLEST: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "context": 8, "rotary_pct": 0.5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = tmp_path / "text"
    text.mkdir()
    (text / "verse.txt").write_text(VERSE)
    return text


@pytest.fixture
def trained(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Settings as the command prints them, for a tokenizer beside the text."""
    assert main(["train", str(folder), "--vocabulary", "280", "--out", str(folder / "tokenizer.json")]) == 0
    settings: dict[str, Any] = json.loads(capsys.readouterr().out)
    return settings


def ids(count: int) -> Tokens:
    return np.arange(count, dtype=np.uint16)


def corpus_of(folder: Path, settings: dict[str, Any], context: int = 8) -> Corpus:
    tokenizer = folder / settings["tokenizer"] if "tokenizer" in settings else None
    return read_corpus(folder, context, settings["vocabulary"], tokenizer, settings.get("tokenizer_sha256", ""))


# --- tokenizers -------------------------------------------------------------------------------------------------------


def test_the_same_text_gives_the_same_tokenizer() -> None:
    first, second = (train(VERSE, 280).to_str() for _ in range(2))
    assert first == second != train(VERSE, 270).to_str()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text: str) -> None:
    tokenizer = train(VERSE, 280)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


@given(st.text("ab\n"), st.integers(1, 5))
def test_pieces_make_up_the_text_and_end_with_lines(text: str, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("windfall.tasks.tokens.PIECE", piece)
        pieces = list(cut(text))
    assert "".join(pieces) == text
    assert all(each.endswith("\n") for each in pieces[:-1])


def test_bytes_of_a_token_are_known(folder: Path, trained: dict[str, Any]) -> None:
    pairs = read_tokenizer(folder / "tokenizer.json")
    tokens = pairs.encode(VERSE)
    assert pairs.vocabulary == trained["vocabulary"] == 280
    assert len(tokens) < 0.7 * len(VERSE.encode()) == 0.7 * int(pairs.octets[tokens].sum())


def test_special_tokens_stand_for_no_bytes_and_added_ones_for_their_own(tmp_path: Path) -> None:
    tokenizer = train(VERSE, 280)
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.add_tokens(["  風"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    pairs = read_tokenizer(tmp_path / "tokenizer.json")
    assert pairs.octets[-2:].tolist() == [0, 5]


def test_models_with_other_vocabularies_compare(folder: Path, trained: dict[str, Any]) -> None:
    """An untrained model is about even between its tokens: per token it is worse with more of them, per byte not."""
    by_byte, by_token = gpt_neox(SMALLEST), gpt_neox({**SMALLEST, **trained})
    one, other = (task.evaluate(task.model(0), folder) for task in (by_byte, by_token))
    assert one.metric == other.metric == "nats per byte"
    assert one.value == one.loss == pytest.approx(np.log(256), rel=0.05)
    assert other.loss == pytest.approx(np.log(280), rel=0.05)
    assert other.value < 0.7 * other.loss


def test_a_model_trains_on_tokens(folder: Path, trained: dict[str, Any]) -> None:
    task = gpt_neox({**SMALLEST, **trained, "learning_rate": 0.01})
    model = task.model(0)
    optimizer, loader = task.optimizer(model), task.loader(folder, seed=1)
    before = task.evaluate(model, folder).value
    for _ in range(30):
        optimizer.zero_grad()
        task.loss(model, loader.batch(8, model)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert task.evaluate(model, folder).value < 0.8 * before


def test_another_tokenizer_is_refused(folder: Path, trained: dict[str, Any]) -> None:
    train(VERSE, 279).save(str(folder / "tokenizer.json"))
    with pytest.raises(DataError, match=r"tokenizer .* has SHA-256 .*, the federation's has") as caught:
        gpt_neox({**SMALLEST, **trained}).loader(folder, seed=1)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder: Path, trained: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="has 280 tokens, the model 270"):
        gpt_neox({**SMALLEST, **trained, "vocabulary": 270}).loader(folder, seed=1)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\x00"], ids=["empty", "json", "bytes"])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is no tokenizer"):
        read_tokenizer(path)


def test_a_tokenizer_of_words_is_refused(tmp_path: Path) -> None:
    Tokenizer(models.WordLevel({"風": 0, "wind": 1}, unk_token="wind")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="is no byte-level tokenizer"):
        read_tokenizer(tmp_path / "tokenizer.json")


def test_text_that_is_not_utf8_is_named_with_its_byte(folder: Path, trained: dict[str, Any]) -> None:
    (folder / "verse.txt").write_bytes(b"wind\xff")
    with pytest.raises(DataError, match="is not UTF-8 at byte 4"):
        corpus_of(folder, trained)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["train", "{folder}", "--vocabulary", "255"], "at least 256 tokens, not 255"),
        (["train", "{folder}/nowhere"], "cannot read text from"),
        (["encode", "{folder}", "--tokenizer", "{folder}/none.json"], "cannot read the tokenizer"),
        (["encode", "{folder}", "--tokenizer", "x", "--out", "tokens.txt"], "ends in .bin, tokens.txt does not"),
    ],
    ids=["vocabulary", "folder", "tokenizer", "out"],
)
def test_a_wrong_command_is_one_line(
    folder: Path, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(folder=folder) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.count("\n") == 1


# --- token files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("vocabulary", "dtype"), [(300, "uint16"), (1 << 16, "uint16"), (70_000, "uint32")], ids=str)
def test_tokens_come_back_from_a_file(tmp_path: Path, vocabulary: int, dtype: str) -> None:
    tokens = np.array([0, 1, vocabulary - 1, 256], np.uint32)
    write_token_file(tmp_path / "a.bin", tokens, vocabulary)
    assert json.loads((tmp_path / "a.json").read_text())["dtype"] == dtype
    found = read_token_file(tmp_path / "a.bin", vocabulary)
    assert isinstance(found, np.memmap)
    assert found.tolist() == tokens.tolist()


def test_an_encoded_folder_is_the_text_itself(
    folder: Path, trained: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoded = tmp_path / "encoded"
    encoded.mkdir()
    (encoded / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    command = ["encode", str(folder), "--tokenizer", str(folder / "tokenizer.json"), "--out", str(encoded / "a.bin")]
    assert main(command) == 0
    assert "tokens of 280" in capsys.readouterr().out
    task = gpt_neox({**SMALLEST, **trained})
    assert task.evaluate(task.model(0), encoded) == task.evaluate(task.model(0), folder)


def test_bytes_of_foreign_tokens_are_not_known(tmp_path: Path) -> None:
    write_token_file(tmp_path / "a.bin", ids(100), 300)
    task = gpt_neox({**SMALLEST, "vocabulary": 300})
    evaluation = task.evaluate(task.model(0), tmp_path)
    assert (evaluation.metric, evaluation.value) == ("nats per token", evaluation.loss)


def test_files_too_short_for_a_window_are_passed_over(tmp_path: Path) -> None:
    for name, count in (("a", 8), ("b", 9), ("c", 0), ("d", 12)):
        write_token_file(tmp_path / f"{name}.bin", ids(count), 300)
    assert corpus_of(tmp_path, {"vocabulary": 300}).starts == 1 + 4
    for name in ("b", "d"):
        (tmp_path / f"{name}.bin").unlink()
    with pytest.raises(DataError, match="has the 9 tokens of a window"):
        corpus_of(tmp_path, {"vocabulary": 300})


ABOUT = '{"dtype": "uint16", "vocabulary": 300}'


@pytest.mark.parametrize(
    ("content", "about", "complaint"),
    [
        (b"\x00" * 41, ABOUT, r"a\.bin ends at byte 41 within a uint16 token"),
        (b"\x00" * 40 + b"\x2c\x01" + b"\x00" * 9, ABOUT, r"a\.bin ends at byte 51"),
        (b"\x00" * 40 + b"\x2c\x01" + b"\x00" * 8, ABOUT, r"a\.bin at byte 40: token 300 is outside .* of 300"),
        (b"\x00" * 40, ABOUT[:-1] + ', "tokens": 30}', r"a\.bin ends at byte 40, its JSON promises 60 bytes"),
        (b"\x00" * 40, '{"dtype": "uint16", "vocabulary": 301}', r"vocabulary of 301, the model one of 300"),
        (b"\x00" * 40, '{"dtype": "uint8", "vocabulary": 300}', r"a\.json does not describe a token file: dtype: "),
        (b"\x00" * 40, "{", r"a\.json does not describe a token file: its text: "),
        (b"\x00" * 40, None, r"cannot read .*a\.json: No such file"),
    ],
    ids=["odd", "odd and outside", "outside", "truncated", "vocabulary", "dtype", "json", "no json"],
)
def test_a_damaged_token_file_is_named_with_its_byte(
    tmp_path: Path, content: bytes, about: str | None, complaint: str
) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    if about is not None:
        (tmp_path / "a.json").write_text(about)
    with pytest.raises(DataError, match=complaint) as caught:
        corpus_of(tmp_path, {"vocabulary": 300})
    assert "\n" not in str(caught.value)


def test_tokens_of_another_tokenizer_are_refused(folder: Path, trained: dict[str, Any]) -> None:
    (folder / "verse.txt").unlink()
    write_token_file(folder / "a.bin", ids(100), 280, tokenizer_sha256="0" * 64)
    with pytest.raises(DataError, match="was made with another tokenizer"):
        corpus_of(folder, trained)


def test_text_beside_tokens_is_refused(folder: Path) -> None:
    write_token_file(folder / "a.bin", ids(100), 300)
    with pytest.raises(DataError, match=r"holds \*\.txt and \*\.bin files\. Leave one kind"):
        corpus_of(folder, {"vocabulary": 300})
