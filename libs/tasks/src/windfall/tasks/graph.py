"""Graphs whose nodes have features and, some of them, a label to learn.

- tables: ``nodes.tsv`` (columns ``id``, ``label``, ``split``, ``words`` and, where sites share files, ``site``) and
  ``edges.tsv`` (``u``, ``v``), plain or gzipped; ``words`` are the indices of features that are 1, and ``split`` is
  ``train``, ``val``, ``test`` or ``none``
- the files of the Open Graph Benchmark (arXiv 2005.00687): ``raw/edge.csv.gz``, ``raw/node-feat.csv.gz``,
  ``raw/node-label.csv.gz`` and ``split/<name>/{train,test}.csv.gz``
"""

import csv
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from windfall.tasks.task import DataError

COLUMNS: Final = ("id", "label", "split", "words")
SPLITS: Final = ("train", "val", "test", "none")


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph of n nodes."""

    features: Tensor
    """fp32 ``[n, features]``, dense or sparse."""
    labels: Tensor
    """int64 ``[n]``."""
    adjacency: Tensor
    """sparse fp32 ``[n, n]``: D^−½ (A + I) D^−½ of the undirected graph (arXiv 1609.02907, equation 2)."""
    train: Tensor
    test: Tensor
    """Nodes, int64, whose labels are learnt from and whose labels are asked for."""


def open_graph(folder: Path, features: int, classes: int, site: int | None = None) -> Graph:
    """The graph in a folder; of one site its nodes alone, and the edges between them.

    Raises:
        DataError: nothing there, a file is damaged, or it does not fit the settings.
    """
    if _either(folder / "nodes.tsv") is not None:
        return _text(folder, features, classes, site)
    if (folder / "raw" / "edge.csv.gz").exists():
        if site is not None:
            raise DataError(
                f"the graph in {str(folder)!r} names no sites. Leave 'site' out, and give every site its files"
            )
        return _benchmark(folder, features, classes)
    raise DataError(f"no graph in {str(folder)!r}. Put nodes.tsv and edges.tsv there, or raw/edge.csv.gz and its like")


def normalised(edges: Tensor, nodes: int) -> Tensor:
    """D^−½ (A + I) D^−½ of the undirected graph, each edge counted once whatever the file repeats.

    Args:
        edges: int64 ``[2, edges]``.
    """
    loops = torch.arange(nodes).expand(2, nodes)
    both = torch.cat((edges, edges.flip(0), loops), dim=1)
    once = torch.unique(both[0] * nodes + both[1])
    whole = torch.stack((once // nodes, once % nodes))
    scale = torch.bincount(whole[0], minlength=nodes).float().rsqrt()
    return torch.sparse_coo_tensor(
        whole, scale[whole[0]] * scale[whole[1]], (nodes, nodes), check_invariants=True
    ).coalesce()


def _text(folder: Path, features: int, classes: int, site: int | None) -> Graph:
    path = _either(folder / "nodes.tsv") or folder
    place: dict[int, int | None] = {}
    labels: list[int] = []
    marks: dict[str, list[int]] = {split: [] for split in SPLITS}
    rows: list[int] = []
    words: list[int] = []
    sites: set[int] = set()
    for line, row in _rows(path, COLUMNS if site is None else (*COLUMNS, "site")):
        where = f"{str(path)!r}, line {line}"
        node, label = _whole(row, "id", where), _whole(row, "label", where, classes)
        if node in place:
            raise DataError(f"{where}: the node was there before. Keep one")
        if row["split"] not in marks:
            raise DataError(f"{where}: split is not one of {', '.join(SPLITS)}. Mend it")
        if site is not None:
            home = _whole(row, "site", where)
            sites.add(home)
            if home != site:
                place[node] = None
                continue
        place[node] = len(labels)
        marks[row["split"]].append(len(labels))
        for word in filter(None, row["words"].split(",")):
            rows.append(len(labels))
            words.append(_number(word, "words", where, features))
        labels.append(label)
    if not labels:
        known = f"; its sites are {', '.join(str(one) for one in sorted(sites))}" if sites else ""
        raise DataError(f"{str(path)!r} has no node{'' if site is None else f' of site {site}'}{known}. Set 'site'")
    edges = _text_edges(folder, place)
    # A node's features add up to 1, as in the paper's experiments.
    share = 1 / torch.bincount(torch.tensor(rows, dtype=torch.int64), minlength=len(labels)).float().clamp(min=1)
    at = torch.tensor([rows, words], dtype=torch.int64)
    bag = torch.sparse_coo_tensor(at, share[at[0]], (len(labels), features), check_invariants=True).coalesce()
    train, test = (torch.tensor(marks[split], dtype=torch.int64) for split in ("train", "test"))
    return Graph(bag, torch.tensor(labels), normalised(edges, len(labels)), train, test)


def _text_edges(folder: Path, place: dict[int, int | None]) -> Tensor:
    path = _either(folder / "edges.tsv")
    if path is None:
        raise DataError(f"no edges.tsv beside the nodes in {str(folder)!r}. Put it there")
    inner: list[tuple[int, int]] = []
    for line, row in _rows(path, ("u", "v")):
        where = f"{str(path)!r}, line {line}"
        ends = _whole(row, "u", where), _whole(row, "v", where)
        for end in ends:
            if end not in place:
                raise DataError(f"{where}: an end is no node of nodes.tsv. Add the node, or leave the edge out")
        u, v = place[ends[0]], place[ends[1]]
        if u is not None and v is not None:
            inner.append((u, v))
    return torch.tensor(inner, dtype=torch.int64).view(-1, 2).T


def _benchmark(folder: Path, features: int, classes: int) -> Graph:
    given = _table(folder / "raw" / "node-feat.csv.gz", np.float32)
    if given.shape[1] != features:
        raise DataError(f"nodes in {str(folder)!r} have {given.shape[1]} features, the task {features}. Set 'features'")
    labels = _indices(folder / "raw" / "node-label.csv.gz", classes)
    if len(labels) != len(given):
        raise DataError(f"{str(folder)!r} has features of {len(given)} nodes and {len(labels)} labels. Fetch it again")
    edges = _table(folder / "raw" / "edge.csv.gz", np.int64)
    if edges.shape[1] != 2 or edges.min(initial=0) < 0 or edges.max(initial=0) >= len(given):
        raise DataError(
            f"{str(folder / 'raw' / 'edge.csv.gz')!r} is not of pairs of nodes 0 to {len(given) - 1}. Fetch it again"
        )
    splits = sorted(path for path in (folder / "split").glob("*") if path.is_dir())
    if len(splits) != 1:
        raise DataError(f"{str(folder / 'split')!r} has {len(splits)} folders. Leave the one whose split is meant")
    train, test = (_indices(splits[0] / f"{name}.csv.gz", len(given)) for name in ("train", "test"))
    return Graph(torch.from_numpy(given), labels, normalised(torch.from_numpy(edges.T.copy()), len(given)), train, test)


def _indices(path: Path, below: int) -> Tensor:
    found = _table(path, np.int64)
    wrong = np.argwhere((found < 0) | (found >= below))
    if found.shape[1] != 1 or len(wrong):
        line = int(wrong[0, 0]) + 1 if len(wrong) else 1
        raise DataError(
            f"{str(path)!r}, line {line}: one number from 0 to {below - 1} is due. Set 'classes', or fetch it again"
        )
    return torch.from_numpy(found[:, 0].copy())


def _table(
    path: Path, kind: type[np.float32] | type[np.int64]
) -> "np.ndarray[tuple[int, int], np.dtype[np.float32 | np.int64]]":
    read = 0

    def counted() -> Iterator[str]:
        nonlocal read
        for line in _lines(path):
            read += 1
            yield line

    try:
        return np.loadtxt(counted(), dtype=kind, delimiter=",", ndmin=2)
    except DataError:
        raise
    except ValueError as error:
        # NumPy's own words would show what the line holds.
        raise DataError(
            f"{str(path)!r}, line {read}: not numbers, or fewer or more than before. Fetch it again"
        ) from error


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a table under its heading, with their number in the file."""
    lines = csv.reader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    heading = next(lines, [])
    if missing := [column for column in columns if column not in heading]:
        raise DataError(f"{str(path)!r}, line 1: no column {', '.join(missing)}. Name the columns there")
    for number, cells in enumerate(lines, start=2):
        if len(cells) != len(heading):
            raise DataError(
                f"{str(path)!r}, line {number}: {len(cells)} columns, {len(heading)} are due. Fetch it again"
            )
        yield number, dict(zip(heading, cells, strict=True))


def _lines(path: Path) -> Iterator[str]:
    done, line = 0, b""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                yield line.decode()
                done += len(line)
        if not done:
            raise DataError(f"{str(path)!r} is empty. Fetch it again")
    except UnicodeDecodeError as error:
        raise DataError(f"{str(path)!r} has a byte at {done + error.start} that is no UTF-8. Fetch it again") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{str(path)!r} cannot be unpacked after unpacked byte {done}: {error}. Fetch it again"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}. Put it there") from error


def _whole(row: dict[str, str], column: str, where: str, below: int | None = None) -> int:
    return _number(row[column], column, where, below)


def _number(text: str, column: str, where: str, below: int | None = None) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19) or (below is not None and int(text) >= below):
        limit = "" if below is None else f" below {below}"
        raise DataError(f"{where}: {column} is not a whole number{limit}. Mend it")
    return int(text)


def _either(plain: Path) -> Path | None:
    return next((path for path in (plain, plain.with_name(f"{plain.name}.gz")) if path.exists()), None)
