from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SiteState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SITE_STATE_UNSPECIFIED: _ClassVar[SiteState]
    SITE_STATE_IDLE: _ClassVar[SiteState]
    SITE_STATE_PULLING: _ClassVar[SiteState]
    SITE_STATE_TRAINING: _ClassVar[SiteState]
    SITE_STATE_PUSHING: _ClassVar[SiteState]
    SITE_STATE_DRAINING: _ClassVar[SiteState]
SITE_STATE_UNSPECIFIED: SiteState
SITE_STATE_IDLE: SiteState
SITE_STATE_PULLING: SiteState
SITE_STATE_TRAINING: SiteState
SITE_STATE_PUSHING: SiteState
SITE_STATE_DRAINING: SiteState

class JoinRequest(_message.Message):
    __slots__ = ("federation", "site", "window_id", "lease_token", "protocol", "jurisdiction", "fragments", "signs")
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    JURISDICTION_FIELD_NUMBER: _ClassVar[int]
    FRAGMENTS_FIELD_NUMBER: _ClassVar[int]
    SIGNS_FIELD_NUMBER: _ClassVar[int]
    federation: str
    site: str
    window_id: str
    lease_token: int
    protocol: int
    jurisdiction: str
    fragments: bool
    signs: bool
    def __init__(self, federation: _Optional[str] = ..., site: _Optional[str] = ..., window_id: _Optional[str] = ..., lease_token: _Optional[int] = ..., protocol: _Optional[int] = ..., jurisdiction: _Optional[str] = ..., fragments: _Optional[bool] = ..., signs: _Optional[bool] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("attempt", "task", "task_settings_json", "tensors", "codec", "heartbeat_interval_ms", "outer", "clip", "merge", "corpus", "overlap", "fragments", "jurisdiction", "jurisdictions")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    TASK_SETTINGS_JSON_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    OUTER_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    MERGE_FIELD_NUMBER: _ClassVar[int]
    CORPUS_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_FIELD_NUMBER: _ClassVar[int]
    FRAGMENTS_FIELD_NUMBER: _ClassVar[int]
    JURISDICTION_FIELD_NUMBER: _ClassVar[int]
    JURISDICTIONS_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    task: str
    task_settings_json: str
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    codec: str
    heartbeat_interval_ms: int
    outer: str
    clip: bool
    merge: str
    corpus: Corpus
    overlap: bool
    fragments: int
    jurisdiction: str
    jurisdictions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, attempt: _Optional[int] = ..., task: _Optional[str] = ..., task_settings_json: _Optional[str] = ..., tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., codec: _Optional[str] = ..., heartbeat_interval_ms: _Optional[int] = ..., outer: _Optional[str] = ..., clip: _Optional[bool] = ..., merge: _Optional[str] = ..., corpus: _Optional[_Union[Corpus, _Mapping]] = ..., overlap: _Optional[bool] = ..., fragments: _Optional[int] = ..., jurisdiction: _Optional[str] = ..., jurisdictions: _Optional[_Iterable[str]] = ...) -> None: ...

class Corpus(_message.Message):
    __slots__ = ("rows", "seed")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    rows: int
    seed: int
    def __init__(self, rows: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...

class RowRange(_message.Message):
    __slots__ = ("begin", "end")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    begin: int
    end: int
    def __init__(self, begin: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class RowsRequest(_message.Message):
    __slots__ = ("federation", "site", "attempt", "lease_token", "hold")
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    federation: str
    site: str
    attempt: int
    lease_token: int
    hold: int
    def __init__(self, federation: _Optional[str] = ..., site: _Optional[str] = ..., attempt: _Optional[int] = ..., lease_token: _Optional[int] = ..., hold: _Optional[int] = ...) -> None: ...

class RowsReply(_message.Message):
    __slots__ = ("held",)
    HELD_FIELD_NUMBER: _ClassVar[int]
    held: _containers.RepeatedCompositeFieldContainer[RowRange]
    def __init__(self, held: _Optional[_Iterable[_Union[RowRange, _Mapping]]] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "shape", "dtype", "exact", "tied_to")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    TIED_TO_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    exact: bool
    tied_to: str
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., exact: _Optional[bool] = ..., tied_to: _Optional[str] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("federation", "site", "attempt", "round", "steps", "tokens", "state")
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    federation: str
    site: str
    attempt: int
    round: int
    steps: int
    tokens: int
    state: SiteState
    def __init__(self, federation: _Optional[str] = ..., site: _Optional[str] = ..., attempt: _Optional[int] = ..., round: _Optional[int] = ..., steps: _Optional[int] = ..., tokens: _Optional[int] = ..., state: _Optional[_Union[SiteState, str]] = ...) -> None: ...

class Directive(_message.Message):
    __slots__ = ("round_opened", "finish_round", "stop")
    ROUND_OPENED_FIELD_NUMBER: _ClassVar[int]
    FINISH_ROUND_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    round_opened: RoundOpened
    finish_round: FinishRound
    stop: Stop
    def __init__(self, round_opened: _Optional[_Union[RoundOpened, _Mapping]] = ..., finish_round: _Optional[_Union[FinishRound, _Mapping]] = ..., stop: _Optional[_Union[Stop, _Mapping]] = ...) -> None: ...

class RoundOpened(_message.Message):
    __slots__ = ("round", "base_digest", "base_bytes", "local_steps", "micro_batch", "tokens", "sites", "codec", "accumulation", "precision", "jurisdictions")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    BASE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOCAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    ACCUMULATION_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    JURISDICTIONS_FIELD_NUMBER: _ClassVar[int]
    round: int
    base_digest: str
    base_bytes: int
    local_steps: int
    micro_batch: int
    tokens: int
    sites: int
    codec: str
    accumulation: int
    precision: str
    jurisdictions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, round: _Optional[int] = ..., base_digest: _Optional[str] = ..., base_bytes: _Optional[int] = ..., local_steps: _Optional[int] = ..., micro_batch: _Optional[int] = ..., tokens: _Optional[int] = ..., sites: _Optional[int] = ..., codec: _Optional[str] = ..., accumulation: _Optional[int] = ..., precision: _Optional[str] = ..., jurisdictions: _Optional[_Iterable[str]] = ...) -> None: ...

class FinishRound(_message.Message):
    __slots__ = ("round",)
    ROUND_FIELD_NUMBER: _ClassVar[int]
    round: int
    def __init__(self, round: _Optional[int] = ...) -> None: ...

class Stop(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class PullRequest(_message.Message):
    __slots__ = ("federation", "site", "attempt", "base_digest", "offset", "held_digest", "held_contribution", "follow")
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    HELD_DIGEST_FIELD_NUMBER: _ClassVar[int]
    HELD_CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    federation: str
    site: str
    attempt: int
    base_digest: str
    offset: int
    held_digest: str
    held_contribution: str
    follow: bool
    def __init__(self, federation: _Optional[str] = ..., site: _Optional[str] = ..., attempt: _Optional[int] = ..., base_digest: _Optional[str] = ..., offset: _Optional[int] = ..., held_digest: _Optional[str] = ..., held_contribution: _Optional[str] = ..., follow: _Optional[bool] = ...) -> None: ...

class PullFrame(_message.Message):
    __slots__ = ("data", "head")
    DATA_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    head: PullHead
    def __init__(self, data: _Optional[bytes] = ..., head: _Optional[_Union[PullHead, _Mapping]] = ...) -> None: ...

class PullHead(_message.Message):
    __slots__ = ("total_bytes", "log")
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    total_bytes: int
    log: bool
    def __init__(self, total_bytes: _Optional[int] = ..., log: _Optional[bool] = ...) -> None: ...

class ContributionKey(_message.Message):
    __slots__ = ("federation", "site", "round", "attempt")
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    federation: str
    site: str
    round: int
    attempt: int
    def __init__(self, federation: _Optional[str] = ..., site: _Optional[str] = ..., round: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...

class PushProgress(_message.Message):
    __slots__ = ("received_bytes", "accepted", "invites")
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    INVITES_FIELD_NUMBER: _ClassVar[int]
    received_bytes: int
    accepted: bool
    invites: bool
    def __init__(self, received_bytes: _Optional[int] = ..., accepted: _Optional[bool] = ..., invites: _Optional[bool] = ...) -> None: ...

class PushFrame(_message.Message):
    __slots__ = ("manifest", "data")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    manifest: Manifest
    data: bytes
    def __init__(self, manifest: _Optional[_Union[Manifest, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("key", "lease_token", "base_digest", "codec", "tokens", "steps", "loss", "partial", "total_bytes", "sha256", "tensors", "offset", "skipped", "cursor", "rows", "spikes", "refused_passes", "certificate", "signature")
    KEY_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SPIKES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_PASSES_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    key: ContributionKey
    lease_token: int
    base_digest: str
    codec: str
    tokens: int
    steps: int
    loss: float
    partial: bool
    total_bytes: int
    sha256: str
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    offset: int
    skipped: int
    cursor: int
    rows: _containers.RepeatedCompositeFieldContainer[RowRange]
    spikes: int
    refused_passes: int
    certificate: bytes
    signature: bytes
    def __init__(self, key: _Optional[_Union[ContributionKey, _Mapping]] = ..., lease_token: _Optional[int] = ..., base_digest: _Optional[str] = ..., codec: _Optional[str] = ..., tokens: _Optional[int] = ..., steps: _Optional[int] = ..., loss: _Optional[float] = ..., partial: _Optional[bool] = ..., total_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., offset: _Optional[int] = ..., skipped: _Optional[int] = ..., cursor: _Optional[int] = ..., rows: _Optional[_Iterable[_Union[RowRange, _Mapping]]] = ..., spikes: _Optional[int] = ..., refused_passes: _Optional[int] = ..., certificate: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class PushReceipt(_message.Message):
    __slots__ = ("duplicate",)
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    duplicate: bool
    def __init__(self, duplicate: _Optional[bool] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("federation", "site", "attempt", "reason")
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    federation: str
    site: str
    attempt: int
    reason: str
    def __init__(self, federation: _Optional[str] = ..., site: _Optional[str] = ..., attempt: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
