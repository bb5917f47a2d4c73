"""Pictures and the page."""

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from windfall.cli import plots, report
from windfall.cli.paper_plot import paper
from windfall.cli.recording import Said
from windfall.cli.story import windows
from windfall.cli.summary import Run, summarise
from windfall.cli.waterfall import SPANS_SHOWN

PNG = b"\x89PNG\r\n\x1a\n"
VOID = {"meta", "br", "link"}


class Strict(HTMLParser):
    """Fails on a tag that is not closed where it should be, and gathers what a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Closed as it opened."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _span(trace: str, number: int, service: str) -> dict[str, Any]:
    return {
        "name": f"process <windfall.v1.step-{number}>",
        "trace_id": trace,
        "span_id": f"{number:016x}",
        "parent_id": None,
        "start_unix_ns": 10**18 + number * 10**7,
        "end_unix_ns": 10**18 + number * 10**7 + 3_000_000,
        "resource": {"service.name": service, "windfall.whom": "site-a"},
    }


def _signals(run: Run, recorded: Sequence[Said]) -> Figure:
    return plots.signals(windows(recorded), run.traces, run.trace_start, run.trace_end, 100.0, 150.0)


def _page(run: Run, recorded: Sequence[Said], spans: Sequence[dict[str, Any]]) -> Strict:
    text = report.page(
        summary=summarise(run, recorded),
        said=recorded,
        spans=spans,
        pictures={
            "loss": plots.svg(plots.losses(recorded)),
            "windows": plots.svg(_signals(run, recorded)),
        },
        processes=["nats@hub", "provisioner@site-a"],
        policy={"seed": "11", "sites": "a & b"},
        settings={"provisioner@site-a": {"WINDFALL_GRACE": "PT10S & no more"}},
        digests={"trace.csv": "c0ffee"},
        command="windfall demo --seed 11",
    )
    reader = Strict()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


@pytest.mark.parametrize("some", [True, False], ids=["run", "nothing"])
def test_pictures_are_png_and_svg(run: Run, recorded: Sequence[Said], tmp_path: Path, some: bool) -> None:
    said = recorded if some else []
    for name, figure in (("loss", plots.losses(said)), ("windows", _signals(run, said))):
        plots.png(figure, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG)
        drawn = plots.svg(figure)
        assert drawn.startswith("<svg") and drawn.rstrip().endswith("</svg>")
        assert "var(--ink, " in drawn


def test_the_picture_for_a_paper_is_drawn(run: Run, recorded: Sequence[Said], tmp_path: Path) -> None:
    for name, said in (("some", recorded), ("nothing", [])):
        whole = paper(said, windows(said), run.traces, summarise(run, said), run.trace_start, run.trace_end)
        plots.png(whole, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG)


def test_the_page_stands_alone_and_is_whole(run: Run, recorded: Sequence[Said]) -> None:
    page = _page(run, recorded, [_span(f"{1:032x}", number, "provisioner") for number in range(200)])
    assert [address for address in page.addresses if not address.startswith("#")] == []
    for expected in (
        *("80 ×", "held-out loss", "One trace per window", "windfall demo --seed 11", "a & b"),
        *("WINDFALL_GRACE=PT10S & no more", "trace.csv, sha256c0ffee"),
        *("left in the middle of a round", "a contribution was refused: not-finite", "the round went on without it"),
    ):
        assert expected in page.text
    assert "process <windfall.v1.step-0>" in page.text
    assert f"The first {SPANS_SHOWN} of 200." in page.text


def test_a_page_of_nothing_is_whole(run: Run) -> None:
    page = _page(run, [], [])
    assert "no round was completed" in page.text


def test_closing_words_are_few(run: Run, recorded: Sequence[Said], tmp_path: Path) -> None:
    words = report.closing_words(summarise(run, recorded), tmp_path)
    assert len(words) <= 8
    assert words[-1].endswith("report.html")
