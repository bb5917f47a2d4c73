import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LeaseState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEASE_STATE_UNSPECIFIED: _ClassVar[LeaseState]
    LEASE_STATE_REQUESTED: _ClassVar[LeaseState]
    LEASE_STATE_PROVISIONING: _ClassVar[LeaseState]
    LEASE_STATE_READY: _ClassVar[LeaseState]
    LEASE_STATE_DRAINING: _ClassVar[LeaseState]
    LEASE_STATE_RELEASED: _ClassVar[LeaseState]
    LEASE_STATE_FAILED: _ClassVar[LeaseState]
LEASE_STATE_UNSPECIFIED: LeaseState
LEASE_STATE_REQUESTED: LeaseState
LEASE_STATE_PROVISIONING: LeaseState
LEASE_STATE_READY: LeaseState
LEASE_STATE_DRAINING: LeaseState
LEASE_STATE_RELEASED: LeaseState
LEASE_STATE_FAILED: LeaseState

class Lease(_message.Message):
    __slots__ = ("lease_id", "site", "window_id", "token", "state", "node", "reason", "changed_at", "need", "attempts")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CHANGED_AT_FIELD_NUMBER: _ClassVar[int]
    NEED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    site: str
    window_id: str
    token: int
    state: LeaseState
    node: str
    reason: str
    changed_at: _timestamp_pb2.Timestamp
    need: Need
    attempts: int
    def __init__(self, lease_id: _Optional[str] = ..., site: _Optional[str] = ..., window_id: _Optional[str] = ..., token: _Optional[int] = ..., state: _Optional[_Union[LeaseState, str]] = ..., node: _Optional[str] = ..., reason: _Optional[str] = ..., changed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., need: _Optional[_Union[Need, _Mapping]] = ..., attempts: _Optional[int] = ...) -> None: ...

class Need(_message.Message):
    __slots__ = ("workers", "accelerators")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    ACCELERATORS_FIELD_NUMBER: _ClassVar[int]
    workers: int
    accelerators: int
    def __init__(self, workers: _Optional[int] = ..., accelerators: _Optional[int] = ...) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ("site", "window_id", "need")
    SITE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_ID_FIELD_NUMBER: _ClassVar[int]
    NEED_FIELD_NUMBER: _ClassVar[int]
    site: str
    window_id: str
    need: Need
    def __init__(self, site: _Optional[str] = ..., window_id: _Optional[str] = ..., need: _Optional[_Union[Need, _Mapping]] = ...) -> None: ...

class PlanReply(_message.Message):
    __slots__ = ("backend", "description", "held", "objects", "hindrance")
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    HINDRANCE_FIELD_NUMBER: _ClassVar[int]
    backend: str
    description: str
    held: Lease
    objects: _containers.RepeatedScalarFieldContainer[str]
    hindrance: str
    def __init__(self, backend: _Optional[str] = ..., description: _Optional[str] = ..., held: _Optional[_Union[Lease, _Mapping]] = ..., objects: _Optional[_Iterable[str]] = ..., hindrance: _Optional[str] = ...) -> None: ...

class AcquireRequest(_message.Message):
    __slots__ = ("site", "window_id", "need")
    SITE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_ID_FIELD_NUMBER: _ClassVar[int]
    NEED_FIELD_NUMBER: _ClassVar[int]
    site: str
    window_id: str
    need: Need
    def __init__(self, site: _Optional[str] = ..., window_id: _Optional[str] = ..., need: _Optional[_Union[Need, _Mapping]] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("site", "window_id", "reason")
    SITE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    site: str
    window_id: str
    reason: str
    def __init__(self, site: _Optional[str] = ..., window_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("site",)
    SITE_FIELD_NUMBER: _ClassVar[int]
    site: str
    def __init__(self, site: _Optional[str] = ...) -> None: ...

class ListReply(_message.Message):
    __slots__ = ("leases", "cordon")
    LEASES_FIELD_NUMBER: _ClassVar[int]
    CORDON_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[Lease]
    cordon: str
    def __init__(self, leases: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ..., cordon: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("site",)
    SITE_FIELD_NUMBER: _ClassVar[int]
    site: str
    def __init__(self, site: _Optional[str] = ...) -> None: ...

class CordonRequest(_message.Message):
    __slots__ = ("site", "reason")
    SITE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    site: str
    reason: str
    def __init__(self, site: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class UncordonRequest(_message.Message):
    __slots__ = ("site",)
    SITE_FIELD_NUMBER: _ClassVar[int]
    site: str
    def __init__(self, site: _Optional[str] = ...) -> None: ...

class CordonReply(_message.Message):
    __slots__ = ("cordon",)
    CORDON_FIELD_NUMBER: _ClassVar[int]
    cordon: str
    def __init__(self, cordon: _Optional[str] = ...) -> None: ...
