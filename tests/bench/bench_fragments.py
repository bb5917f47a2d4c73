"""What a round moves and costs when it synchronises one fragment of four, beside the whole model."""

import asyncio
import tempfile
from pathlib import Path
from typing import Final

from tests.bench import rounds
from tests.bench.figures import Figure, report

_FRAGMENTS: Final = 4
_TIMES: Final = 8
_SITES: Final = 3
_MODEL: Final = "40 MB"
_CODECS: Final = (("topk-ef", "average"), ("int8-block", ""), ("bf16", "average"))


def measured(folder: Path, codec: str, outer: str) -> list[Figure]:
    """A codec's figures; each is of the fragments, beside that of the whole model."""
    whole, parts = (
        asyncio.run(rounds.run(_under(folder, f"{codec}-{count}"), _MODEL, _SITES, _TIMES, codec, outer, count))
        for count in (1, _FRAGMENTS)
    )
    conditions = f"{_FRAGMENTS} fragments; {_SITES} sites, model of {whole.model_bytes / 1e6:.0f} MB, {_TIMES} rounds"
    figures = []
    for what, one, other, unit, scale in (
        ("up kB", parts.bytes_up, whole.bytes_up, "kB", 1e3),
        ("most up kB", parts.most_bytes_up, whole.most_bytes_up, "kB", 1e3),
        ("down kB", parts.bytes_down, whole.bytes_down, "kB", 1e3),
        ("s", parts.median_s, whole.median_s, "s", 1),
        ("coordinator's CPU s", parts.coordinator_cpu_s, whole.coordinator_cpu_s, "s", 1),
    ):
        figures.append(
            Figure(
                f"fragment round {codec} {what}",
                one / scale,
                unit,
                "",
                {"whole model": other / scale, "x less": other / one},
                conditions,
            )
        )
    return figures


def _under(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def main() -> None:
    figures = []
    for codec, outer in _CODECS:
        print(f"measuring {codec} ...", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            figures += measured(Path(folder), codec, outer)
    report("fragments", figures)


if __name__ == "__main__":
    main()
