import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from windfall.tasks.graph import Graph, normalised, open_graph
from windfall.tasks.shipped import shipped
from windfall.tasks.task import DataError

NODES = "id\tlabel\tsplit\tsite\twords\n10\t0\ttrain\t0\t0,2\n11\t1\ttrain\t1\t1\n12\t1\ttest\t0\t\n13\t0\tval\t1\t2\n"
EDGES = "u\tv\n10\t11\n10\t12\n11\t13\n13\t11\n"


def write(folder: Path, nodes: str = NODES, edges: str = EDGES) -> Path:
    (folder / "nodes.tsv").write_text(nodes)
    (folder / "edges.tsv").write_text(edges)
    return folder


def small(folder: Path, site: int | None = None) -> Graph:
    return open_graph(folder, features=3, classes=2, site=site)


def test_tables_are_read(tmp_path: Path) -> None:
    graph = small(write(tmp_path))
    assert graph.features.to_dense().tolist() == [[0.5, 0, 0.5], [0, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert graph.labels.tolist() == [0, 1, 1, 0]
    assert (graph.train.tolist(), graph.test.tolist()) == ([0, 1], [2])
    connected = graph.adjacency.to_dense() > 0
    assert connected.int().tolist() == [[1, 1, 1, 0], [1, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]


def test_gzipped_tables_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "nodes.tsv.gz").write_bytes(gzip.compress(NODES.encode()))
    (tmp_path / "edges.tsv.gz").write_bytes(gzip.compress(EDGES.encode()))
    assert small(tmp_path).adjacency.to_dense().count_nonzero() == 10


def test_a_site_sees_its_nodes_and_the_edges_between_them(tmp_path: Path) -> None:
    graph = small(write(tmp_path), site=1)
    assert graph.labels.tolist() == [1, 0]
    assert graph.features.to_dense().tolist() == [[0, 1, 0], [0, 0, 1]]
    torch.testing.assert_close(graph.adjacency.to_dense(), torch.full((2, 2), 0.5))
    assert (graph.train.tolist(), graph.test.tolist()) == ([0], [])


@given(pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=20))
def test_adjacency_is_as_the_paper_defines_it(pairs: list[tuple[int, int]]) -> None:
    dense = torch.eye(7)
    for u, v in pairs:
        dense[u, v] = dense[v, u] = 1
    root = dense.sum(dim=1).rsqrt().diag()
    edges = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T
    torch.testing.assert_close(normalised(edges, 7).to_dense(), root @ dense @ root)


def write_benchmark(folder: Path) -> Path:
    for name, text in {
        "raw/edge": "0,1\n2,1\n",
        "raw/node-feat": "0.5,-1\n2,3.25\n0,0\n",
        "raw/node-label": "1\n0\n1\n",
        "raw/num-node-list": "3\n",
        "split/time/train": "2\n0\n",
        "split/time/valid": "1\n",
        "split/time/test": "1\n",
    }.items():
        path = folder / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()))
    return folder


def test_files_of_the_open_graph_benchmark_are_read(tmp_path: Path) -> None:
    graph = open_graph(write_benchmark(tmp_path), features=2, classes=2)
    assert graph.features.tolist() == [[0.5, -1], [2, 3.25], [0, 0]]
    assert graph.labels.tolist() == [1, 0, 1]
    assert (graph.train.tolist(), graph.test.tolist()) == ([2, 0], [1])
    assert (graph.adjacency.to_dense() > 0).int().tolist() == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]


def pack(folder: Path, name: str, text: str) -> None:
    (write_benchmark(folder) / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))


def cut_packed(folder: Path) -> None:
    path = write_benchmark(folder) / "raw" / "edge.csv.gz"
    path.write_bytes(path.read_bytes()[:-6])


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: pack(folder, "raw/node-feat", "1\n2\n3\n"), "have 1 features, the task 2. Set 'features'"),
        (lambda folder: pack(folder, "raw/node-feat", "1,2\n3\n"), "node-feat.csv.gz', line 2: not numbers, or fewer"),
        (lambda folder: pack(folder, "raw/node-feat", "1,2\n3,secret\n4,5\n"), "line 2: not numbers"),
        (lambda folder: pack(folder, "split/time/train", ""), "train.csv.gz' is empty"),
        (lambda folder: pack(folder, "raw/node-label", "1\n0\n"), "has features of 3 nodes and 2 labels"),
        (
            lambda folder: pack(folder, "raw/node-label", "1\n0\n2\n"),
            "node-label.csv.gz', line 3: .*from 0 to 1 is due",
        ),
        (lambda folder: pack(folder, "raw/edge", "0,3\n"), "edge.csv.gz' is not of pairs of nodes 0 to 2"),
        (lambda folder: pack(folder, "split/time/test", "-1\n"), "test.csv.gz', line 1: .*from 0 to 2 is due"),
        (cut_packed, r"edge.csv.gz' cannot be unpacked after unpacked byte \d+"),
        (lambda folder: (write_benchmark(folder) / "split" / "species").mkdir(), "has 2 folders. Leave the one"),
        (lambda folder: (write_benchmark(folder) / "raw" / "node-feat.csv.gz").unlink(), "cannot read .*node-feat"),
    ],
    ids=[
        "features",
        "ragged",
        "words",
        "empty",
        "fewer labels",
        "label",
        "edge",
        "split",
        "truncated",
        "splits",
        "missing",
    ],
)
def test_damaged_benchmark_files_are_named(tmp_path: Path, damage: Callable[[Path], None], complaint: str) -> None:
    damage(tmp_path)
    with pytest.raises(DataError, match=complaint) as caught:
        open_graph(tmp_path, features=2, classes=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("nodes", "edges", "complaint"),
    [
        ("id\tlabel\tsplit\n", EDGES, "nodes.tsv', line 1: no column words"),
        ("", EDGES, "nodes.tsv' is empty"),
        (NODES + "14\t0\n", EDGES, "nodes.tsv', line 6: 2 columns, 5 are due"),
        (NODES + "10\t0\ttrain\t0\t\n", EDGES, "nodes.tsv', line 6: the node was there before"),
        (NODES + "14\t2\ttrain\t0\t\n", EDGES, "nodes.tsv', line 6: label is not a whole number below 2"),
        (NODES + "14\t0\tdev\t0\t\n", EDGES, "nodes.tsv', line 6: split is not one of train, val, test, none"),
        (NODES + "14\t0\ttrain\t0\t0,3\n", EDGES, "nodes.tsv', line 6: words is not a whole number below 3"),
        (NODES + "-4\t0\ttrain\t0\t0\n", EDGES, "nodes.tsv', line 6: id is not a whole number"),
        ("id\tlabel\tsplit\twords\n", EDGES, "nodes.tsv' has no node"),
        (NODES, "u\tv\n10\t99\n", "edges.tsv', line 2: an end is no node of nodes.tsv"),
    ],
    ids=["column", "empty", "short", "twice", "label", "split", "word", "id", "no nodes", "edge"],
)
def test_damaged_tables_are_named_with_the_line(tmp_path: Path, nodes: str, edges: str, complaint: str) -> None:
    write(tmp_path, nodes, edges)
    with pytest.raises(DataError, match=complaint) as caught:
        small(tmp_path)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "edges.tsv").write_bytes(b"u\tv\n10\t11\n1\xff\t12\n")
    with pytest.raises(DataError, match=r"edges.tsv' has a byte at 11 that is no UTF-8"):
        small(tmp_path)


def test_a_site_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no node of site 7; its sites are 0, 1. Set 'site'"):
        small(write(tmp_path), site=7)
    (tmp_path / "ogb").mkdir()
    with pytest.raises(DataError, match="names no sites"):
        open_graph(write_benchmark(tmp_path / "ogb"), features=2, classes=2, site=0)


def test_folders_without_a_graph(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no graph in .*Put nodes.tsv and edges.tsv there"):
        small(tmp_path)
    (tmp_path / "nodes.tsv").write_text(NODES)
    with pytest.raises(DataError, match=r"no edges.tsv beside the nodes"):
        small(tmp_path)


def test_cora_ships() -> None:
    graph = open_graph(shipped("cora"), features=1433, classes=7)
    assert torch.bincount(graph.labels).tolist() == [351, 217, 418, 818, 426, 298, 180]
    assert torch.bincount(graph.labels[graph.train]).tolist() == [20] * 7
    assert len(graph.test) == 1000
    assert graph.adjacency.values().numel() == 2 * 5278 + 2708
    sites = [open_graph(shipped("cora"), features=1433, classes=7, site=site) for site in range(3)]
    assert [len(site.labels) for site in sites] == [902, 915, 891]
    assert [len(site.train) for site in sites] == [44, 34, 62], "every site has labels to train on"
    assert "Thomas Kipf" in (shipped("cora") / "LICENSE.txt").read_text()
