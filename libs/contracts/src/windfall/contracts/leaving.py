"""What may leave a site: every message, field by field, with its class and the reason. Whatever is not here stays.

``REQUESTS`` are the gRPC messages that a site sends (its trainer and profiler call, its provisioner answers), ``FACTS``
the events that the hub sources from its stream, ``ENVELOPE``, ``METADATA`` and ``LEAF`` what carries them. What comes
in the other way is named in ``ANSWERS`` and ``ORDERS``. ``docs/sovereignty.md`` holds the same as a table, and a test
holds a real fleet's traffic, byte for byte, against it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Cargo(StrEnum):
    """What kind of thing leaves."""

    IDENTIFIER = "identifier"
    """A name or number that somebody gave: a site, a window, a lease. It says nothing of the data."""
    TIME = "time"
    COUNT = "count"
    BUCKETED = "bucketed"
    """A measurement of the data, rounded so coarsely that it tells of no sample."""
    DIGEST = "digest"
    MODEL = "model"
    """What was learnt: an encoded pseudo-gradient."""
    LAYOUT = "layout"
    """What the coordinator said itself, said back: names and shapes of tensors, the codec."""
    PROFILE = "profile"
    """What the node can do: its hardware and its link."""
    STATE = "state"
    """One word of a closed list, or yes and no."""
    ENERGY = "energy"
    """What the site's power is made of, or what its node drew."""
    SENTENCE = "sentence"
    """A line for a person that code composes (``windfall.contracts.message.Sentence``): no path, no address, bounded.
    """
    APP = "app"
    """Whatever a Flower ClientApp returns that the site's owner has put there: nobody else can vouch for it."""
    IDENTITY = "identity"
    """By what others know the site: public keys and what certifies them, and a token that holds once. No private key.
    """
    NOISE = "noise"
    """Random bytes that measure a link."""


@dataclass(frozen=True)
class Leaves:
    """One field that may leave."""

    cargo: Cargo
    why: str


def _all(cargo: Cargo, **why: str) -> dict[str, Leaves]:
    return {field: Leaves(cargo, reason) for field, reason in why.items()}


_SITE = _all(Cargo.IDENTIFIER, site="whose it is")
_MEMBER = _all(Cargo.IDENTIFIER, federation="which federation is meant", attempt="which membership is meant") | _SITE
_LEASE = _all(Cargo.IDENTIFIER, lease_token="fences an older node off")  # noqa: S106 - a number, no secret
_WINDOW = _all(Cargo.IDENTIFIER, window_id="which window it belongs to")
_FACT = _all(Cargo.IDENTIFIER, id="tells a repeated sentence from a new one") | _all(Cargo.TIME, at="when") | _SITE
_BECAUSE = _all(Cargo.SENTENCE, because="why, for a person")

_OF_A_BAND = {
    **_FACT,
    **_BECAUSE,
    **_all(Cargo.IDENTIFIER, target="the hub, or a site: its name and not its address"),
    **_all(Cargo.STATE, part="what of the link is meant"),
    **_all(Cargo.PROFILE, value="as measured", low="what is usual", high="what is usual"),
}

REQUESTS: Final[dict[str, dict[str, Leaves]]] = {
    "JoinRequest": {
        **_SITE,
        **_WINDOW,
        **_LEASE,
        **_all(Cargo.IDENTIFIER, federation="which federation is meant"),
        **_all(Cargo.COUNT, protocol="an unknown version is refused"),
        **_all(
            Cargo.STATE,
            jurisdiction="under whose law the site lies, when its policy says so",
            fragments="whether it can synchronise a fragment of the model alone",
            signs="whether it signs what it contributes",
        ),
    },
    "Beat": {
        **_MEMBER,
        **_all(Cargo.COUNT, round="where the site stands", steps="its pace", tokens="its pace"),
        **_all(Cargo.STATE, state="what it does now"),
    },
    "PullRequest": {
        **_MEMBER,
        **_all(Cargo.DIGEST, base_digest="which model", held_digest="from which one", held_contribution="what it has"),
        **_all(Cargo.COUNT, offset="where a cut download goes on"),
        **_all(Cargo.STATE, follow="whether the outer optimizer's state is wanted"),
    },
    "ContributionKey": {**_MEMBER, **_all(Cargo.COUNT, round="which round is meant")},
    "PushFrame": {
        **_all(Cargo.LAYOUT, manifest="what the contribution is, see Manifest"),
        **_all(Cargo.MODEL, data="what was learnt"),
    },
    "Manifest": {
        **_LEASE,
        **_all(Cargo.IDENTIFIER, key="whose it is and of which round, see ContributionKey"),
        **_all(Cargo.DIGEST, base_digest="what it was trained from", sha256="that it arrived whole"),
        **_all(Cargo.LAYOUT, codec="how it is written", tensors="what it is about, see Tensor"),
        **_all(Cargo.COUNT, tokens="its weight", steps="its weight", skipped="whether training is sound"),
        **_all(Cargo.COUNT, spikes="whether training is sound", refused_passes="whether the node has memory enough"),
        **_all(Cargo.COUNT, total_bytes="that it arrived whole", offset="where a cut upload goes on"),
        **_all(Cargo.COUNT, cursor="where the site's data goes on", rows="of a shared corpus, see RowRange"),
        **_all(Cargo.BUCKETED, loss="how training goes: a mean over all steps, to 0.01 or the site's coarser step"),
        **_all(Cargo.STATE, partial="whether the site leaves"),
        **_all(Cargo.IDENTITY, certificate="whose key signed", signature="that the site itself says so"),
    },
    "Tensor": _all(
        Cargo.LAYOUT,
        name="of the model, as the coordinator said it",
        shape="of the model, as the coordinator said it",
        dtype="of the model, as the coordinator said it",
        exact="of the model, as the coordinator said it",
        tied_to="of the model, as the coordinator said it",
    ),
    "RowsRequest": {**_MEMBER, **_LEASE, **_all(Cargo.COUNT, hold="how many rows of the shared corpus are wanted")},
    "RowRange": _all(
        Cargo.COUNT,
        begin="a place in the order of a corpus that every site has",
        end="a place in the order of a corpus that every site has",
    ),
    "LeaveRequest": {**_MEMBER, **_all(Cargo.SENTENCE, reason="why it goes")},
    "ListCheckpointsRequest": _all(Cargo.IDENTIFIER, federation="whose models a person at the site asks for"),
    "FetchCheckpointRequest": {
        **_all(Cargo.IDENTIFIER, federation="whose model a person at the site asks for"),
        **_all(Cargo.DIGEST, digest="which model"),
        **_all(Cargo.COUNT, offset="where a cut download goes on"),
    },
    "AuthorityRequest": {},
    "EnrolRequest": {
        **_SITE,
        **_all(
            Cargo.IDENTITY,
            secret="a token that holds once",  # noqa: S106 - a reason, no secret
            requests="what is to be certified, see SigningRequest",
            leaf_nkey="the public key of its NATS server",
        ),
        **_all(Cargo.TIME, at_unix_ms="whether its clock is right"),
    },
    "SigningRequest": {
        **_all(Cargo.IDENTIFIER, service="which of its services is meant"),
        **_all(Cargo.IDENTITY, request="a public key and the site's name, signed"),
    },
    "RenewRequest": _all(
        Cargo.IDENTITY,
        certificate="who asks",
        request="the new public key, signed",
        signature="that the old key's holder asks",
    ),
    "NodeJoinRequest": {
        **_SITE,
        **_WINDOW,
        **_LEASE,
        **_all(Cargo.IDENTIFIER, federation="which federation is meant", app="which app the site holds"),
        **_all(Cargo.COUNT, protocol="an unknown version is refused"),
    },
    "NodeBeat": {**_MEMBER, **_all(Cargo.STATE, draining="whether the site leaves")},
    "FetchRequest": {
        **_MEMBER,
        **_all(Cargo.DIGEST, body_sha256="which message"),
        **_all(Cargo.COUNT, offset="where a cut download goes on"),
    },
    "ReplyKey": {**_MEMBER, **_all(Cargo.IDENTIFIER, message_id="what it answers")},
    "ReplyFrame": {
        **_all(Cargo.LAYOUT, head="what the reply is, see ReplyHead"),
        **_all(Cargo.APP, data="the arrays of a ClientApp's reply"),
    },
    "ReplyHead": {
        **_LEASE,
        **_all(Cargo.IDENTIFIER, key="whose it is and what it answers, see ReplyKey"),
        **_all(Cargo.APP, header="the records of a ClientApp's reply"),
        **_all(Cargo.COUNT, body_bytes="that it arrived whole", offset="where a cut upload goes on"),
        **_all(Cargo.DIGEST, body_sha256="that it arrived whole"),
        **_all(Cargo.SENTENCE, error="why there is none, see ReplyError"),
    },
    "ReplyError": {**_all(Cargo.STATE, code="Flower's number for it"), **_all(Cargo.SENTENCE, reason="in words")},
    "NodeLeaveRequest": {**_MEMBER, **_all(Cargo.SENTENCE, reason="why it goes")},
    "EchoMessage": _all(Cargo.COUNT, sequence="measures the way there and back"),
    "ProbeChunk": _all(Cargo.NOISE, data="measures the link"),
    "SourceRequest": _all(Cargo.COUNT, bytes="how much noise is asked for"),
    "PlanReply": {
        **_all(Cargo.STATE, backend="what kind of node would start"),
        **_all(Cargo.SENTENCE, description="what would start"),
        **_all(Cargo.IDENTIFIER, held="the lease that holds the site, see Lease"),
        **_all(
            Cargo.SENTENCE,
            objects="what would be written to the site's API server, for whoever may ask it: machines by name",
            hindrance="why nothing starts, on which machine",
        ),
    },
    "Lease": {
        **_SITE,
        **_WINDOW,
        **_all(Cargo.IDENTIFIER, lease_id="which lease", token="its fencing token", node="its node"),  # noqa: S106
        **_all(Cargo.STATE, state="where its node stands"),
        **_all(Cargo.SENTENCE, reason="why"),
        **_all(Cargo.TIME, changed_at="since when"),
        **_all(Cargo.COUNT, need="what was asked for, see Need", attempts="how often its node was started"),
    },
    "Need": _all(Cargo.COUNT, workers="how many were asked for", accelerators="how many each of them gets"),
    "ListReply": {
        **_all(Cargo.IDENTIFIER, leases="each lease, see Lease"),
        **_all(Cargo.SENTENCE, cordon="why the site gives no leases"),
    },
    "CordonReply": _all(Cargo.SENTENCE, cordon="why the site gives no leases"),
}
"""Of ``windfall.contracts.v1``, by message."""

ANSWERS: Final = frozenset(
    {
        "JoinReply",
        "Directive",
        "Corpus",
        "RowsReply",
        "RoundOpened",
        "FinishRound",
        "Stop",
        "PullFrame",
        "PullHead",
        "PushProgress",
        "PushReceipt",
        "LeaveReply",
        "ListCheckpointsReply",
        "Checkpoint",
        "CheckpointFrame",
        "CheckpointHead",
        "CheckpointTensor",
        "AuthorityReply",
        "EnrolReply",
        "Waiting",
        "Admission",
        "Certificate",
        "RenewReply",
        "NodeJoinReply",
        "Announcement",
        "MessageNotice",
        "RunEnded",
        "FetchFrame",
        "ReplyProgressReply",
        "ReplyReceipt",
        "NodeLeaveReply",
        "SinkReport",
        "PlanRequest",
        "AcquireRequest",
        "CordonRequest",
        "UncordonRequest",
        "ReleaseRequest",
        "ListRequest",
        "WatchRequest",
    }
)
"""Messages that come in and never go out."""

FACTS: Final[dict[str, dict[str, Leaves]]] = {
    "signal.observed": {
        **_FACT,
        **_all(Cargo.IDENTIFIER, signal="the site's name for it"),
        **_all(Cargo.STATE, kind="what is measured", unit="in which unit"),
        **_all(Cargo.ENERGY, value="what a planner goes by", forecast="what a planner goes by"),
        **_all(Cargo.TIME, point_time="when it held"),
    },
    "signal.refused": {
        **_FACT,
        **_all(Cargo.IDENTIFIER, signal="the site's name for it"),
        **_all(Cargo.STATE, reason="why it is not believed"),
        **_all(Cargo.SENTENCE, detail="why it is not believed"),
        **_all(Cargo.TIME, point_time="when it held"),
    },
    "signal.stale": {**_FACT, **_all(Cargo.TIME, last_point_time="since when", limit_s="how long is too long")},
    "signal.recovered": {**_FACT, **_all(Cargo.TIME, point_time="when it held")},
    "signal.forecast": {
        **_FACT,
        **_all(Cargo.STATE, kind="what is foreseen"),
        **_all(Cargo.TIME, issued_at="when it was made", step_s="its step"),
        **_all(Cargo.ENERGY, values="what a planner goes by"),
    },
    "window.expected": {
        **_FACT,
        **_WINDOW,
        **_BECAUSE,
        **_all(Cargo.TIME, opens_at="when", expected_close_at="until when"),
        **_all(Cargo.ENERGY, confidence="how sure that is"),
    },
    "window.withdrawn": {**_FACT, **_WINDOW, **_BECAUSE},
    "window.judged": {
        **_FACT,
        **_BECAUSE,
        **_all(Cargo.STATE, state="whether the site is on"),
        **_all(Cargo.SENTENCE, would_change="what would change it"),
        **_all(Cargo.TIME, next_change_at="when that is"),
    },
    "window.opened": {
        **_FACT,
        **_WINDOW,
        **_BECAUSE,
        **_all(Cargo.ENERGY, intensity_g_per_kwh="how clean it is", confidence="how sure its end is"),
        **_all(Cargo.TIME, expected_close_at="until when"),
    },
    "window.closing": {**_FACT, **_WINDOW, **_all(Cargo.TIME, closes_at="when")},
    "window.closed": {
        **_FACT,
        **_WINDOW,
        **_BECAUSE,
        **_all(Cargo.STATE, reason="why"),
        **_all(Cargo.TIME, crossed_at="since when"),
    },
    "node.hindered": {
        **_FACT,
        **_WINDOW,
        **_LEASE,
        **_all(Cargo.IDENTIFIER, lease_id="which lease"),
        **_all(Cargo.SENTENCE, because="why its node does not come; how many machines, and not which"),
    },
    "node.ready": {
        **_FACT,
        **_WINDOW,
        **_LEASE,
        **_all(Cargo.IDENTIFIER, lease_id="which lease", node="the site's name and the lease's number"),
        **_all(Cargo.STATE, backend="what kind of node it is"),
    },
    "node.failed": {
        **_FACT,
        **_WINDOW,
        **_LEASE,
        **_all(Cargo.IDENTIFIER, lease_id="which lease"),
        **_all(Cargo.SENTENCE, reason="why"),
    },
    "node.profiled": {
        **_FACT,
        **_WINDOW,
        **_LEASE,
        **_all(Cargo.IDENTIFIER, node="the site's name and the lease's number"),
        **_all(Cargo.PROFILE, measured="what paces rounds, see Measured", recommendation="see Recommendation"),
        **_all(Cargo.PROFILE, hardware="what the node is made of, see Hardware; not which one it is"),
    },
    "link.measured": {
        **_FACT,
        **_all(Cargo.IDENTIFIER, target="the hub, or a site: its name and not its address"),
        **_all(
            Cargo.PROFILE,
            rtt_ms="how far it is away",
            jitter_ms="how steady that is",
            up_mb_per_s="how wide the link is",
            down_mb_per_s="how wide the link is",
            missing="what could not be measured, and why, in a sentence",
        ),
        **_all(Cargo.COUNT, moved_bytes="what the measurement cost"),
    },
    "link.degraded": _OF_A_BAND,
    "link.recovered": _OF_A_BAND,
    "task.learnt": {
        **_FACT,
        **_WINDOW,
        **_LEASE,
        **_all(Cargo.IDENTIFIER, federation="in which federation"),
        **_all(Cargo.LAYOUT, task="what the coordinator said itself", task_settings="what the coordinator said itself"),
    },
    "training.started": {
        **_FACT,
        **_WINDOW,
        **_LEASE,
        **_all(Cargo.IDENTIFIER, federation="in which federation"),
        **_all(Cargo.COUNT, round="in which round"),
    },
    "site.drained": {
        **_FACT,
        **_WINDOW,
        **_LEASE,
        **_all(Cargo.IDENTIFIER, federation="from which federation"),
        **_all(Cargo.STATE, delivered="whether work was lost"),
    },
    "site.withheld": {
        **_FACT,
        **_WINDOW,
        **_LEASE,
        **_all(Cargo.IDENTIFIER, federation="from which federation"),
        **_all(Cargo.STATE, before="before what the policy refused"),
        **_all(Cargo.SENTENCE, because="which line of the site's policy"),
    },
    "node.released": {
        **_FACT,
        **_WINDOW,
        **_LEASE,
        **_all(Cargo.IDENTIFIER, lease_id="which lease", node="the site's name and the lease's number"),
        **_all(Cargo.STATE, reason="why"),
    },
    "energy.recorded": {
        **_FACT,
        **_WINDOW,
        **_all(Cargo.COUNT, sequence="its place in the ledger"),
        **_all(Cargo.STATE, state="of the node", method="metered or modelled"),
        **_all(Cargo.TIME, start="from", end="until"),
        **_all(Cargo.ENERGY, energy_kwh="drawn", emissions_kg="emitted", clean_energy_kwh="of it clean"),
        **_all(Cargo.DIGEST, entry_hash="which entry of the signed ledger it is"),
    },
}
"""Events of a site that the hub sources, by topic. A site's stream takes no other."""

PARTS: Final[dict[str, dict[str, Leaves]]] = {
    "Point": {**_all(Cargo.TIME, point_time="from when on"), **_all(Cargo.ENERGY, value="what a planner goes by")},
    "Measured": _all(
        Cargo.PROFILE,
        fingerprint="whether it is still the same node: a hash of what follows",
        cpu_model="what the node is",
        cpu_cores="what the node is",
        memory_bytes="what the node is",
        matmul_gflops="how fast it is",
        memory_bandwidth_gb_per_s="how fast it is",
        step_s_by_micro_batch="how fast it trains",
        task="what it trained, by the name of the federation's task",
        device="what trained",
        matmul_gflops_by_dtype="in which precision it is fast",
        matmul_gflops_by_device="whether its GPUs are alike",
        host_to_device_gb_per_s="how fast its GPU is fed",
        device_to_host_gb_per_s="how fast its GPU gives back",
        all_reduce_gb_per_s="how fast its devices train together",
        all_reduce_ranks="how many devices train together",
        power_idle_w="what it draws for nothing",
        power_train_w="what it draws for training",
        joules_per_sample="what a sample costs",
        intervals="how sure all of it is, see Interval",
        benchmark="with what it was measured; another version is another measure",
        link_rtt_ms="how far it is away",
        link_up_mb_per_s="how wide its link is",
        link_down_mb_per_s="how wide its link is",
        missing="what could not be measured, and why, in a sentence",
    ),
    "Interval": _all(Cargo.PROFILE, low="at least", high="at most", runs="from how many runs"),
    "Hardware": _all(
        Cargo.PROFILE,
        accelerators="what trains, see Accelerator",
        interconnects="how fast GPUs of the node exchange, see Interconnect",
        processor="what feeds them, see Processor",
        nics="what the node can exchange with its neighbours, see Nic",
        storage="whether contributions and checkpoints fit and how fast they are safe, see Storage",
        system="which builds run on it, see System",
        missing="what could not be found out, and why, in a sentence",
    ),
    "Accelerator": _all(
        Cargo.PROFILE,
        vendor="which build of torch it needs",
        model="what it is",
        canonical_model="what it is, by one name for all vendors' tools",
        architecture="which kernels it runs",
        memory_bytes="which models and batches fit",
        driver="which runtime it takes; a new one is measured anew",
        partition_mode="whether it can be divided",
        partitions="how it is divided, see Partition",
        ecc="whether its memory is protected",
        ecc_uncorrected="whether it is sound",
        power_limit_w="what it may draw",
        throttled="why it is slower than it could be",
        numa_node="what it is near to",
        pcie="how fast it is fed, see PcieLink",
    ),
    "Partition": _all(Cargo.PROFILE, profile="what kind of share", memory_bytes="which models fit"),
    "PcieLink": _all(
        Cargo.PROFILE,
        generation="runs at",
        width="runs at",
        generation_max="could run at",
        width_max="could run at",
    ),
    "Interconnect": _all(
        Cargo.PROFILE,
        first="which of the node's GPUs, by number",
        second="which of the node's GPUs, by number",
        kind="how they are joined",
        hop="how far apart they are",
        links="how many links",
        gb_per_s="how wide",
    ),
    "Processor": _all(
        Cargo.PROFILE,
        model="what it is",
        sockets="how large it is",
        cores="how large it is",
        threads="how large it is",
        features="which kernels it runs",
        numa_nodes="how it is divided, see NumaNode",
        memory_bytes="what fits",
    ),
    "NumaNode": _all(Cargo.PROFILE, number="which", threads="of how many", memory_bytes="of what size"),
    "Nic": _all(
        Cargo.PROFILE,
        up="whether it is used",
        speed_mbit_per_s="how fast it is",
        rdma="whether GPUs of several nodes exchange over it",
        driver="what it is",
        numa_node="what it is near to",
    ),
    "Storage": _all(
        Cargo.PROFILE,
        filesystem="what it is",
        total_bytes="what fits",
        free_bytes="what fits still",
        fsync_ms="how fast a journal is safe",
        write_mb_per_s="how fast a checkpoint is",
        read_mb_per_s="how fast a checkpoint is",
    ),
    "System": _all(
        Cargo.PROFILE,
        kernel="which drivers it takes",
        operating_system="which builds run on it",
        container="what the profiler runs in",
        container_runtimes="what may run on it",
    ),
    "Recommendation": {
        **_all(Cargo.PROFILE, micro_batch="what suits the node", local_steps="what suits the node"),
        **_all(Cargo.PROFILE, gradient_accumulation="what suits the node", precision="what suits the node"),
        **_all(Cargo.STATE, told="which of these the site's owner chose"),
        **_BECAUSE,
    },
}
"""What stands within an event's field."""

ORDERS: Final = frozenset(
    {
        "energy-watcher.follow",
        "provisioner.acquire",
        "provisioner.release",
        "provisioner.cordon",
        "provisioner.uncordon",
        "profiler.probe",
        "site-trainer.finish",
        "site-trainer.stop",
    }
)
"""Commands that a site takes from the hub. None of a site's own leaves it."""

ENVELOPE: Final[dict[str, Leaves]] = {
    "nats-msg-id": Leaves(Cargo.IDENTIFIER, "a stream keeps one of two"),
    "ce-specversion": Leaves(Cargo.STATE, "CloudEvents 1.0"),
    "ce-id": Leaves(Cargo.IDENTIFIER, "as the event's id"),
    "ce-source": Leaves(Cargo.IDENTIFIER, "which service of which site says it"),
    "ce-type": Leaves(Cargo.STATE, "which event it is"),
    "ce-subject": Leaves(Cargo.IDENTIFIER, "whom it concerns"),
    "ce-time": Leaves(Cargo.TIME, "as the event's instant"),
    "content-type": Leaves(Cargo.STATE, "application/json"),
    "traceparent": Leaves(Cargo.IDENTIFIER, "W3C trace context: one trace per window"),
    "baggage": Leaves(Cargo.IDENTIFIER, "W3C baggage: federation, round, site and window"),
}
"""Headers of an event on the bus."""

METADATA: Final[dict[str, Leaves]] = {
    ":method": Leaves(Cargo.STATE, "POST"),
    ":scheme": Leaves(Cargo.STATE, "http or https"),
    ":path": Leaves(Cargo.STATE, "which method is called"),
    ":authority": Leaves(Cargo.IDENTIFIER, "the coordinator's own address"),
    "te": Leaves(Cargo.STATE, "trailers"),
    "content-type": Leaves(Cargo.STATE, "application/grpc"),
    "user-agent": Leaves(Cargo.PROFILE, "gRPC's own version"),
    "grpc-accept-encoding": Leaves(Cargo.STATE, "which compressions are understood"),
    "grpc-timeout": Leaves(Cargo.TIME, "how long the caller waits"),
    "traceparent": Leaves(Cargo.IDENTIFIER, "W3C trace context: one trace per window"),
    "baggage": Leaves(Cargo.IDENTIFIER, "W3C baggage: federation, round, site and window"),
}
"""HTTP/2 headers of a gRPC call."""

LEAF: Final[dict[str, Leaves]] = {
    "version": Leaves(Cargo.PROFILE, "the server's own version"),
    "server_id": Leaves(Cargo.IDENTIFIER, "the server's own random key"),
    "domain": Leaves(Cargo.IDENTIFIER, "the site's name"),
    "name": Leaves(Cargo.IDENTIFIER, "the site's name"),
    "cluster": Leaves(Cargo.IDENTIFIER, "the site's name"),
    "headers": Leaves(Cargo.STATE, "headers are understood"),
    "jetstream": Leaves(Cargo.STATE, "it has streams"),
    "deny_pub": Leaves(Cargo.STATE, "what the hub may not ask"),
    "compress_mode": Leaves(Cargo.STATE, "whether the connection is compressed"),
    "remote_account": Leaves(Cargo.STATE, "the default account"),
    "protocol": Leaves(Cargo.COUNT, "version of the leaf protocol"),
}
"""What a site's NATS server says of itself when it connects to the hub's."""
