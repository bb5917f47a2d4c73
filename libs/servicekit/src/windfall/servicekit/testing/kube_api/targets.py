"""What a request is about, and how it is to be written."""

from dataclasses import dataclass

from windfall.servicekit.testing.kube_api.applying import Writer
from windfall.servicekit.testing.kube_api.resources import Resource
from windfall.servicekit.testing.kube_api.store import Key


@dataclass(frozen=True)
class Target:
    """What a request is about."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> Key:
        kind = self.resource.kind
        return Key(kind.group, kind.plural, self.namespace, self.name)


@dataclass(frozen=True)
class Manner:
    """How it is to be written."""

    manager: str
    dry_run: bool = False
    force: bool = False

    def writer(self, target: Target, operation: str = "Update") -> Writer:
        return Writer(operation, self.manager, target.resource.kind.api_version, target.subresource)
