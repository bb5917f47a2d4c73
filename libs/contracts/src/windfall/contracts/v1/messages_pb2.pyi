from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeJoinRequest(_message.Message):
    __slots__ = ("federation", "site", "window_id", "lease_token", "protocol", "app")
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    federation: str
    site: str
    window_id: str
    lease_token: int
    protocol: int
    app: str
    def __init__(self, federation: _Optional[str] = ..., site: _Optional[str] = ..., window_id: _Optional[str] = ..., lease_token: _Optional[int] = ..., protocol: _Optional[int] = ..., app: _Optional[str] = ...) -> None: ...

class NodeJoinReply(_message.Message):
    __slots__ = ("attempt", "node_id", "run_id", "run_config_json", "heartbeat_interval_ms", "max_body_bytes")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    node_id: int
    run_id: int
    run_config_json: str
    heartbeat_interval_ms: int
    max_body_bytes: int
    def __init__(self, attempt: _Optional[int] = ..., node_id: _Optional[int] = ..., run_id: _Optional[int] = ..., run_config_json: _Optional[str] = ..., heartbeat_interval_ms: _Optional[int] = ..., max_body_bytes: _Optional[int] = ...) -> None: ...

class NodeBeat(_message.Message):
    __slots__ = ("federation", "site", "attempt", "draining")
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    federation: str
    site: str
    attempt: int
    draining: bool
    def __init__(self, federation: _Optional[str] = ..., site: _Optional[str] = ..., attempt: _Optional[int] = ..., draining: _Optional[bool] = ...) -> None: ...

class Announcement(_message.Message):
    __slots__ = ("message", "ended")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    message: MessageNotice
    ended: RunEnded
    def __init__(self, message: _Optional[_Union[MessageNotice, _Mapping]] = ..., ended: _Optional[_Union[RunEnded, _Mapping]] = ...) -> None: ...

class MessageNotice(_message.Message):
    __slots__ = ("message_id", "message_type", "group_id", "src_node_id", "dst_node_id", "ttl_s", "created_at_s", "header", "body_bytes", "body_sha256", "round", "traceparent")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    SRC_NODE_ID_FIELD_NUMBER: _ClassVar[int]
    DST_NODE_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_S_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    BODY_SHA256_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    message_type: str
    group_id: str
    src_node_id: int
    dst_node_id: int
    ttl_s: float
    created_at_s: float
    header: bytes
    body_bytes: int
    body_sha256: str
    round: int
    traceparent: str
    def __init__(self, message_id: _Optional[str] = ..., message_type: _Optional[str] = ..., group_id: _Optional[str] = ..., src_node_id: _Optional[int] = ..., dst_node_id: _Optional[int] = ..., ttl_s: _Optional[float] = ..., created_at_s: _Optional[float] = ..., header: _Optional[bytes] = ..., body_bytes: _Optional[int] = ..., body_sha256: _Optional[str] = ..., round: _Optional[int] = ..., traceparent: _Optional[str] = ...) -> None: ...

class RunEnded(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("federation", "site", "attempt", "body_sha256", "offset")
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    BODY_SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    federation: str
    site: str
    attempt: int
    body_sha256: str
    offset: int
    def __init__(self, federation: _Optional[str] = ..., site: _Optional[str] = ..., attempt: _Optional[int] = ..., body_sha256: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class FetchFrame(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class ReplyKey(_message.Message):
    __slots__ = ("federation", "site", "attempt", "message_id")
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    federation: str
    site: str
    attempt: int
    message_id: str
    def __init__(self, federation: _Optional[str] = ..., site: _Optional[str] = ..., attempt: _Optional[int] = ..., message_id: _Optional[str] = ...) -> None: ...

class ReplyProgressReply(_message.Message):
    __slots__ = ("received_bytes", "answered")
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    received_bytes: int
    answered: bool
    def __init__(self, received_bytes: _Optional[int] = ..., answered: _Optional[bool] = ...) -> None: ...

class ReplyFrame(_message.Message):
    __slots__ = ("head", "data")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    head: ReplyHead
    data: bytes
    def __init__(self, head: _Optional[_Union[ReplyHead, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class ReplyHead(_message.Message):
    __slots__ = ("key", "lease_token", "header", "body_bytes", "body_sha256", "offset", "error")
    KEY_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    BODY_SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    key: ReplyKey
    lease_token: int
    header: bytes
    body_bytes: int
    body_sha256: str
    offset: int
    error: ReplyError
    def __init__(self, key: _Optional[_Union[ReplyKey, _Mapping]] = ..., lease_token: _Optional[int] = ..., header: _Optional[bytes] = ..., body_bytes: _Optional[int] = ..., body_sha256: _Optional[str] = ..., offset: _Optional[int] = ..., error: _Optional[_Union[ReplyError, _Mapping]] = ...) -> None: ...

class ReplyError(_message.Message):
    __slots__ = ("code", "reason")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class ReplyReceipt(_message.Message):
    __slots__ = ("duplicate",)
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    duplicate: bool
    def __init__(self, duplicate: _Optional[bool] = ...) -> None: ...

class NodeLeaveRequest(_message.Message):
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

class NodeLeaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
