"""The two ways from a site to the hub."""

from dataclasses import dataclass

from windfall.servicekit.testing.proxy import Proxy


@dataclass(frozen=True)
class Link:
    """Of NATS and of gRPC. It can be slowed and spoilt as well, way by way."""

    nats: Proxy
    rpc: Proxy

    @property
    def each(self) -> tuple[Proxy, Proxy]:
        return self.nats, self.rpc

    def hold(self) -> None:
        """Nothing passes any more, and nobody is told: a partition."""
        for proxy in self.each:
            proxy.up.open.clear()
            proxy.down.open.clear()

    def heal(self) -> None:
        for proxy in self.each:
            proxy.up.open.set()
            proxy.down.open.set()

    def cut(self) -> None:
        """Every connection breaks, and can be made again."""
        for proxy in self.each:
            proxy.cut()
