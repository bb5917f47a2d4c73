from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AuthorityRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AuthorityReply(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    def __init__(self, certificate: _Optional[bytes] = ...) -> None: ...

class SigningRequest(_message.Message):
    __slots__ = ("service", "request")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    service: str
    request: bytes
    def __init__(self, service: _Optional[str] = ..., request: _Optional[bytes] = ...) -> None: ...

class EnrolRequest(_message.Message):
    __slots__ = ("site", "secret", "requests", "leaf_nkey", "at_unix_ms")
    SITE_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    LEAF_NKEY_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    site: str
    secret: bytes
    requests: _containers.RepeatedCompositeFieldContainer[SigningRequest]
    leaf_nkey: str
    at_unix_ms: int
    def __init__(self, site: _Optional[str] = ..., secret: _Optional[bytes] = ..., requests: _Optional[_Iterable[_Union[SigningRequest, _Mapping]]] = ..., leaf_nkey: _Optional[str] = ..., at_unix_ms: _Optional[int] = ...) -> None: ...

class EnrolReply(_message.Message):
    __slots__ = ("waiting", "admission")
    WAITING_FIELD_NUMBER: _ClassVar[int]
    ADMISSION_FIELD_NUMBER: _ClassVar[int]
    waiting: Waiting
    admission: Admission
    def __init__(self, waiting: _Optional[_Union[Waiting, _Mapping]] = ..., admission: _Optional[_Union[Admission, _Mapping]] = ...) -> None: ...

class Waiting(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Certificate(_message.Message):
    __slots__ = ("service", "certificate")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    service: str
    certificate: bytes
    def __init__(self, service: _Optional[str] = ..., certificate: _Optional[bytes] = ...) -> None: ...

class Admission(_message.Message):
    __slots__ = ("certificates", "federation", "coordinator", "leaf")
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_FIELD_NUMBER: _ClassVar[int]
    LEAF_FIELD_NUMBER: _ClassVar[int]
    certificates: _containers.RepeatedCompositeFieldContainer[Certificate]
    federation: str
    coordinator: str
    leaf: str
    def __init__(self, certificates: _Optional[_Iterable[_Union[Certificate, _Mapping]]] = ..., federation: _Optional[str] = ..., coordinator: _Optional[str] = ..., leaf: _Optional[str] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("certificate", "request", "signature")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    request: bytes
    signature: bytes
    def __init__(self, certificate: _Optional[bytes] = ..., request: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class RenewReply(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    def __init__(self, certificate: _Optional[bytes] = ...) -> None: ...
