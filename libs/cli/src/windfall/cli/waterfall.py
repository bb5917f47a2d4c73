"""One waterfall per window: its spans below each other, as they lie in time. Pure."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from windfall.cli.counting import counted

SPANS_SHOWN: Final = 80
"""Of each window's trace; all of them stand in ``traces.jsonl``."""

Json = Mapping[str, Any]


def clock(instant: str | None) -> str:
    """Hours and minutes of an instant in ISO 8601."""
    return instant[11:16] if instant else "–"


def of_windows(summary: Json, spans: Sequence[Json]) -> str:
    """In HTML, for each window of a run."""
    by_trace: dict[str, list[Json]] = {}
    for span in spans:
        by_trace.setdefault(span["trace_id"], []).append(span)
    falls = [_waterfall(window, by_trace.get(window["trace_id"] or "", [])) for window in summary["windows"]]
    return "".join(falls) or '<p class="note">None.</p>'


def _waterfall(window: Json, spans: Sequence[Json]) -> str:
    title = f"{window['site']}, {clock(window['opened_at'])} – {clock(window['closed_at'])}"
    services = {span["resource"].get("service.name", "?") for span in spans}
    said = f"{counted(len(spans), 'spans')} of {counted(len(services), 'services')}"
    note = f"{said}, trace {window['trace_id'] or 'unknown'}"
    shown = sorted(spans, key=lambda span: span["start_unix_ns"])[:SPANS_SHOWN]
    more = f'<p class="note">The first {len(shown)} of {len(spans)}.</p>' if len(spans) > len(shown) else ""
    return (
        f'<details><summary>{escape(title)} <span class="note">{escape(note)}</span></summary>'
        f'<div class="wide"><div class="fall">{_falling(shown)}</div></div>{more}</details>'
    )


def _falling(spans: Sequence[Json]) -> str:
    if not spans:
        return ""
    start = min(span["start_unix_ns"] for span in spans)
    width = max(span["end_unix_ns"] for span in spans) - start or 1
    return "".join(
        f"<div>{escape(_speaker(span['resource']))}</div><div>{escape(span['name'])}</div>"
        f'<div class="lane"><i style="left:{100 * (span["start_unix_ns"] - start) / width:.3f}%;'
        f'width:{100 * (span["end_unix_ns"] - span["start_unix_ns"]) / width:.3f}%"></i></div>'
        f'<div class="ms">{(span["end_unix_ns"] - span["start_unix_ns"]) / 1e6:.1f} ms</div>'
        for span in spans
    )


def _speaker(resource: Json) -> str:
    return f"{resource.get('service.name', '?')} {resource.get('windfall.whom', '')}".strip()
