"""Placement: what it may never do, whatever it is asked, and what it says of a node that it does not use."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.jurisdiction import within
from windfall.provisioner.placement import (
    Need,
    NodeCapacity,
    Placement,
    Pool,
    Profile,
    Resources,
    Site,
    Toleration,
    affinity,
    explain,
    place,
    placements,
)
from windfall.provisioner.placement.fitness import pool_of
from windfall.provisioner.placement.gpus import Gpu

GIB = 2**30
LAWS = ("CA", "CA-QC", "US-GA", "DE", "")
KINDS = (
    Gpu("nvidia", "a100", "nvidia.com/gpu", 80 * GIB, "nvlink", (("nvidia.com/gpu.product", "A100"),)),
    Gpu("nvidia", "t4", "nvidia.com/gpu", 16 * GIB, "pcie", (("nvidia.com/gpu.product", "T4"),)),
    Gpu("amd", "mi300x", "amd.com/gpu", 192 * GIB, "xgmi", (("amd.com/gpu.product-name", "MI300X"),)),
)


def free(gpus: int = 0, cores: float = 64, gib: int = 512, resource: str = "nvidia.com/gpu") -> Resources:
    amounts = {"cpu": Decimal(str(cores)), "memory": Decimal(gib * GIB), "pods": Decimal(100), resource: Decimal(gpus)}
    return Resources(amounts)


def gpu_node(name: str, gpus: int, kind: Gpu = KINDS[0]) -> NodeCapacity:
    return NodeCapacity(name, (kind,), free(gpus, resource=kind.resource), dict(kind.selector))


def why(need: Need, *sites: Site, of: str) -> str:
    return next(said.why for said in explain(need, sites) if of in (said.node, said.node or said.site))


@st.composite
def nodes(draw: st.DrawFn) -> tuple[NodeCapacity, ...]:
    made = []
    for number in range(draw(st.integers(0, 5))):
        kinds = draw(st.lists(st.sampled_from(KINDS), max_size=2, unique_by=lambda kind: kind.resource))
        amounts = {"cpu": Decimal(draw(st.integers(-2, 64))), "memory": Decimal(draw(st.integers(0, 64)) * GIB)}
        amounts |= {"pods": Decimal(draw(st.integers(0, 9)))}
        amounts |= {kind.resource: Decimal(draw(st.integers(-1, 8))) for kind in kinds}
        taints = (("spot", "", "NoSchedule"),) if draw(st.booleans()) else ()
        labels = dict(label for kind in kinds for label in kind.selector)
        made.append(
            NodeCapacity(
                f"node-{number}",
                tuple(kinds),
                Resources(amounts),
                labels,
                taints,
                draw(st.booleans()) or draw(st.booleans()),
                draw(st.booleans()) or draw(st.booleans()),
            )
        )
    return tuple(made)


@st.composite
def sites(draw: st.DrawFn) -> tuple[Site, ...]:
    found = []
    for name in draw(st.lists(st.sampled_from(("atlanta", "quebec", "texas", "ulm")), unique=True, max_size=4)):
        known = draw(nodes())
        profiled = [node.name for node in known if draw(st.booleans())]
        profiles = {node: Profile(draw(st.sampled_from((1.0, 10.0, 25.0)))) for node in profiled}
        held = {node.name: free(draw(st.integers(0, 3))) for node in known if draw(st.integers(0, 3)) == 0}
        found.append(Site(name, known, draw(st.sampled_from(LAWS)), profiles, held))
    return tuple(found)


needs = st.builds(
    Need,
    workers=st.integers(1, 6),
    gpus=st.integers(0, 4),
    cpu_cores=st.sampled_from((0, 0.5, 4)),
    memory_bytes=st.sampled_from((0, GIB, 8 * GIB)),
    vendors=st.sampled_from((frozenset(), frozenset({"amd"}))),
    models=st.sampled_from((frozenset(), frozenset({"NVIDIA-A100-SXM4-80GB"}))),
    gpu_memory_bytes=st.sampled_from((0, 40 * GIB)),
    interconnects=st.sampled_from((frozenset(), frozenset({"nvlink", "xgmi"}))),
    samples_per_s=st.sampled_from((0, 5)),
    jurisdictions=st.sampled_from(((), ("CA",), ("US-GA", "DE"))),
    arrangement=st.sampled_from(("pack", "spread")),
    tolerations=st.sampled_from(((), (Toleration("spot", "Exists"),))),
    pools=st.sampled_from(
        (
            (),
            (Pool("nvidia", vendor="nvidia", count=5), Pool("rest")),
            (Pool("a100", model="a100", vendor="nvidia", count=3), Pool("amd", vendor="amd", count=4)),
            (Pool("nodes", count=2),),
        )
    ),
)


def taken(placed: Placement, need: Need, node: str) -> Mapping[str, Decimal]:
    count = placed.workers[node]
    asked = {"cpu": Decimal(str(need.cpu_cores)), "memory": Decimal(need.memory_bytes), "pods": Decimal(1)}
    if placed.gpu is not None:
        asked[placed.gpu.resource] = Decimal(need.gpus)
    return {name: amount * count for name, amount in asked.items()}


@given(needs, sites())
def test_no_site_outside_the_allowed_laws_is_ever_used(need: Need, known: tuple[Site, ...]) -> None:
    laws = {site.name: site.jurisdiction for site in known}
    for placed in placements(need, known):
        assert not need.jurisdictions or within(laws[placed.site], need.jurisdictions)
    for said in explain(need, known):
        if need.jurisdictions and not within(laws[said.site], need.jurisdictions):
            assert "jurisdiction" in said.why and not said.chosen


@given(needs, sites())
def test_no_node_is_over_committed_and_the_gang_is_whole(need: Need, known: tuple[Site, ...]) -> None:
    held = {(site.name, node.name): node for site in known for node in site.nodes}
    for placed in placements(need, known):
        assert sum(placed.workers.values()) == need.workers and min(placed.workers.values()) > 0
        for name in placed.workers:
            node = held[placed.site, name]
            assert node.ready and node.schedulable and node.unborne(need.tolerations) is None
            for resource, amount in taken(placed, need, name).items():
                assert amount == 0 or amount <= node.free.of(resource)
            for key, value in placed.node_selector.items():
                assert node.labels[key] == value


@given(needs, sites())
def test_no_pool_lends_more_than_it_says(need: Need, known: tuple[Site, ...]) -> None:
    for placed in placements(need, known):
        site = next(site for site in known if site.name == placed.site)
        for pool in need.pools:
            of = [node for node in site.nodes if _is_of(need, node, placed.gpu, pool)]
            if pool.count is None:
                continue
            if pool.vendor is None:
                used = {node.name for node in of if node.name in {*placed.workers, *site.held}}
                new = {node.name for node in of if node.name in placed.workers} - set(site.held)
                assert not new or len(used) <= pool.count
            elif placed.gpu is not None:
                asked = need.gpus * sum(placed.workers.get(node.name, 0) for node in of)
                held = sum(site.held.get(node.name, Resources()).of(placed.gpu.resource) for node in of)
                assert asked == 0 or asked + held <= pool.count


def _is_of(need: Need, node: NodeCapacity, kind: Gpu | None, pool: Pool) -> bool:
    gpus = [gpu for gpu in node.gpus if kind is not None and gpu.resource == kind.resource]
    return pool_of(need, node, gpus[0] if gpus else None) is pool


@given(needs, sites(), st.data())
def test_more_capacity_never_takes_a_place_away(need: Need, known: tuple[Site, ...], data: st.DataObject) -> None:
    before = {placed.site for placed in placements(need, known)}
    grown = []
    for site in known:
        more = [
            replace(node, free=Resources({name: amount + data.draw(st.integers(0, 3)) for name, amount in held}))
            for node in site.nodes
            for held in [node.free.amounts.items()]
        ]
        grown.append(replace(site, nodes=(*more, gpu_node("one-more", 8))))
    assert before <= {placed.site for placed in placements(need, grown)}


@given(needs, sites(), st.randoms(use_true_random=False))
def test_the_order_of_sites_and_nodes_says_nothing(need: Need, known: tuple[Site, ...], random: object) -> None:
    shuffled = [replace(site, nodes=tuple(reversed(site.nodes))) for site in known]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert placements(need, shuffled) == placements(need, known)
    assert explain(need, shuffled) == explain(need, known)


@given(needs, sites())
def test_each_site_and_each_node_is_explained_once_and_as_it_was_placed(need: Need, known: tuple[Site, ...]) -> None:
    said, placed = explain(need, known), place(need, known)
    assert sorted((each.site, each.node) for each in said) == [(each.site, each.node) for each in said]
    assert {(each.site, each.node) for each in said} == {
        (site.name, node) for site in known for node in ("", *(each.name for each in site.nodes))
    }
    chosen = {(each.site, each.node) for each in said if each.chosen}
    expected = {(placed.site, node) for node in ("", *placed.workers)} if placed else set()
    assert chosen == expected and all(each.why for each in said)


@given(needs, sites())
def test_packing_takes_the_fewest_nodes_and_spreading_the_most(need: Need, known: tuple[Site, ...]) -> None:
    packed = {each.site: each for each in placements(replace(need, arrangement="pack"), known)}
    spread = {each.site: each for each in placements(replace(need, arrangement="spread"), known)}
    assert packed.keys() == spread.keys()
    for site, each in packed.items():
        if each.gpu == spread[site].gpu:
            assert len(each.workers) <= len(spread[site].workers)


def test_eight_single_gpus_are_no_node_of_eight() -> None:
    scattered = Site("quebec", tuple(gpu_node(f"n{at}", 1) for at in range(8)), "CA-QC")
    need = Need(workers=1, gpus=8)
    assert place(need, [scattered]) is None
    assert why(need, scattered, of="n3") == "has 1 nvidia.com/gpu free, a worker needs 8"
    assert place(replace(need, workers=8, gpus=1), [scattered]) is not None


def test_a_gang_does_not_mix_vendors() -> None:
    mixed = Site("quebec", (gpu_node("a", 4), gpu_node("b", 4, KINDS[2])), "CA")
    assert place(Need(workers=2, gpus=4), [mixed]) is None
    assert "of one kind of GPU" in why(Need(workers=2, gpus=4), mixed, of="quebec")


def test_the_site_that_was_measured_fastest_is_taken() -> None:
    slow = Site("atlanta", (gpu_node("a", 8),), "US-GA", {"a": Profile(10)})
    fast = Site("quebec", (gpu_node("q", 8),), "CA-QC", {"q": Profile(25)})
    placed = place(Need(gpus=8), [slow, fast])
    assert placed is not None and placed.site == "quebec" and placed.samples_per_s == 25
    assert why(Need(gpus=8), slow, fast, of="atlanta") == (
        "could take the worker of 8 GPUs, but quebec was measured faster"
    )
    barred = place(Need(gpus=8, jurisdictions=("US",)), [slow, fast])
    assert barred is not None and barred.site == "atlanta"
    said = why(Need(gpus=8, jurisdictions=("US",)), slow, fast, of="quebec")
    assert said == "jurisdiction: CA-QC is not within US"


def test_a_node_of_the_same_model_stands_for_one_that_was_not_measured() -> None:
    profile = Profile(20, "a100", gb_per_s=250)
    site = Site("quebec", (gpu_node("a", 8), gpu_node("t", 8, KINDS[1])), "CA", {"quebec-7": profile})
    need = Need(gpus=1, samples_per_s=15, interconnect_gb_per_s=200)
    placed = place(need, [site])
    assert placed is not None and list(placed.workers) == ["a"]
    assert why(need, site, of="t") == "its interconnect was not measured"
    assert why(replace(need, interconnect_gb_per_s=300), site, of="a") == (
        "its interconnect was measured at 250 GB/s, 300 are needed"
    )


@pytest.mark.parametrize(
    ("need", "node", "said"),
    [
        (Need(gpus=1), replace(gpu_node("n", 8), ready=False), "is not ready"),
        (Need(gpus=1), replace(gpu_node("n", 8), schedulable=False), "is cordoned"),
        (Need(gpus=1), replace(gpu_node("n", 8), taints=(("a", "b", "NoExecute"),)), "has the taint a=b:NoExecute"),
        (Need(gpus=1), NodeCapacity("n", (), free()), "has no GPU"),
        (Need(gpus=1, vendors=frozenset({"amd"})), gpu_node("n", 8), "has nvidia a100, needed is amd"),
        (Need(gpus=1, models=frozenset({"H100"})), gpu_node("n", 8), "has nvidia a100, needed is h100"),
        (Need(gpus=1, gpu_memory_bytes=96 * GIB), gpu_node("n", 8), "its GPUs have 80 GiB, 96 GiB are needed"),
        (Need(gpus=1, interconnects=frozenset({"xgmi"})), gpu_node("n", 8), "joined by nvlink, needed is xgmi"),
        (Need(gpus=1, samples_per_s=9), gpu_node("n", 8), "its throughput was not measured"),
        (Need(memory_bytes=600 * GIB), gpu_node("n", 8), "has 512.0 GiB of memory free, a worker needs 600.0"),
        (Need(cpu_cores=65), gpu_node("n", 8), "has 64 CPU cores free, a worker needs 65"),
        (Need(workers=9, gpus=1), gpu_node("n", 8), "has room for 8 workers, but not all of the gang fits"),
    ],
)
def test_a_node_that_is_not_used_hears_why(need: Need, node: NodeCapacity, said: str) -> None:
    assert said in why(need, Site("quebec", (node,)), of="n")


def test_only_what_a_site_lends_is_used() -> None:
    lent = replace(gpu_node("lent", 8), labels={"lent": "yes"})
    site = Site("quebec", (lent, gpu_node("own", 8), gpu_node("other", 8, KINDS[1])))
    pools = (Pool("t4", {"lent": "yes"}, model="T4"), Pool("a100", {"lent": "yes"}, "nvidia", "A100"))
    need = Need(workers=2, gpus=4, pools=pools)
    placed = place(need, [site])
    assert placed is not None and placed.workers == {"lent": 2}
    assert why(need, site, of="own") == "is in no pool that the site lends (t4, a100)"
    assert place(replace(need, pools=(replace(pools[1], vendor="amd"),)), [site]) is None
    assert place(Need(pools=pools[:1]), [site]) is not None, "without GPUs its labels are all of a pool"
    assert why(replace(need, node_selector={"lent": "yes"}), site, of="own") == "does not have the label lent=yes"


@pytest.mark.parametrize(
    ("pool", "held", "workers", "placed"),
    [
        (Pool("a100", vendor="nvidia", count=4), {}, 4, {"one": 4}),
        (Pool("a100", vendor="nvidia", count=4), {}, 5, None),
        (Pool("a100", vendor="nvidia", count=12), {}, 10, {"one": 8, "two": 2}),
        (Pool("a100", vendor="nvidia", count=4), {"two": 2}, 3, None),
        (Pool("a100", vendor="nvidia", count=4), {"two": 2}, 2, {"one": 2}),
        (Pool("a100", vendor="nvidia", count=0), {}, 1, None),
        (Pool("a100", count=1), {}, 9, None),
        (Pool("a100", count=1), {"two": 1}, 1, {"two": 1}),
        (Pool("a100", count=2), {"two": 1}, 16, {"one": 8, "two": 8}),
        (Pool("a100"), {}, 16, {"one": 8, "two": 8}),
    ],
)
def test_a_pool_lends_as_much_as_it_says_less_what_leases_hold(
    pool: Pool, held: dict[str, int], workers: int, placed: dict[str, int] | None
) -> None:
    holding = {name: free(gpus) for name, gpus in held.items()}
    site = Site("quebec", (gpu_node("one", 8), gpu_node("two", 8)), held=holding)
    found = place(Need(workers=workers, gpus=1, pools=(pool,)), [site])
    assert (None if found is None else found.workers) == placed


def test_whoever_asks_hears_what_a_pool_lends() -> None:
    site = Site("quebec", (gpu_node("one", 8),), held={"one": free(3)})
    pools = (Pool("a100", vendor="nvidia", count=4), Pool("more", count=1))
    assert why(Need(workers=2, gpus=1, pools=pools), site, of="quebec") == (
        "has room for 1 of 2 workers: each is counted on its node; "
        "the pool a100 lends 4 GPUs, of which 3 are held; the pool more lends 1 node, of which 0 are held"
    )
    with pytest.raises(ValueError, match="less than nothing"):
        Pool("a100", count=-1)


def test_packing_leaves_the_large_node_whole_where_a_small_one_will_do() -> None:
    site = Site("quebec", (gpu_node("large", 8), gpu_node("small", 4), gpu_node("tiny", 1)))
    packed = place(Need(workers=3, gpus=1), [site])
    spread = place(Need(workers=3, gpus=1, arrangement="spread"), [site])
    assert packed is not None and packed.workers == {"small": 3}
    assert spread is not None and spread.workers == {"large": 1, "small": 1, "tiny": 1}
    assert [len(term["matchFields"][0]["values"]) for term in terms(spread)] == [1, 1, 1]
    names = [term["matchFields"][0]["values"][0] for term in terms(spread)]
    assert all(first < second for first, second in pairwise(names))


def terms(placed: Placement) -> list[dict[str, list[dict[str, list[str]]]]]:
    required = affinity(placed.workers)["requiredDuringSchedulingIgnoredDuringExecution"]
    found: list[dict[str, list[dict[str, list[str]]]]] = required["nodeSelectorTerms"]
    return found


def test_an_impossible_need_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        Need(workers=0)
    with pytest.raises(ValueError, match="below zero"):
        Need(gpus=-1)
