"""Flower's command lines by version.

Read from the programs themselves: 1.40 put everything that a SuperLink serves on one HTTP port; 1.35 took
``--clientappio-api-address`` away. What lies between speaks neither dialect whole and is refused.
"""

from dataclasses import dataclass
from typing import Final

from windfall.contracts.resources.flower import Flower

OLD_ENDS: Final = (1, 35)
NEW_BEGINS: Final = (1, 40)
CLIENT_APP_PORT: Final = 9094
"""Of a SuperNode, for its ClientApps; on the pod's loopback alone."""
TLS_FOLDER: Final = "/etc/windfall/tls"
STATE_FILE: Final = "/var/lib/flower/state.db"


@dataclass(frozen=True)
class Dialect:
    """How the programs of a federation are called.

    Args:
        flower: what a person wrote.
        link: name under which SuperNodes reach the SuperLink, and which its certificate must have.
    """

    flower: Flower
    link: str

    @property
    def new(self) -> bool:
        return version_of(self.flower.version) >= NEW_BEGINS

    @property
    def link_port(self) -> int:
        return self.flower.superlink.service.ports.grpc

    @property
    def ports(self) -> dict[str, int]:
        """What the SuperLink serves to others. ServerAppIO is for its own pod."""
        ports = self.flower.superlink.service.ports
        return {"fleet": ports.grpc} if self.new else {"fleet": ports.grpc, "control": ports.extra}

    def superlink(self) -> list[str]:
        flower, ports = self.flower, self.flower.superlink.service.ports
        args = [f"--isolation={flower.isolation_mode}"]
        if flower.tls is None:
            args.append("--insecure")
        else:
            args += [
                f"--ssl-ca-certfile={TLS_FOLDER}/{flower.tls.authority_key}",
                f"--ssl-certfile={TLS_FOLDER}/{flower.tls.certificate_key}",
                f"--ssl-keyfile={TLS_FOLDER}/{flower.tls.private_key}",
            ]
        if self.new:
            args += ["--host=0.0.0.0", f"--port={ports.grpc}"]
        else:
            args += [
                f"--serverappio-api-address=127.0.0.1:{ports.server_app_io}",
                f"--fleet-api-address=0.0.0.0:{ports.grpc}",
                f"--control-api-address=0.0.0.0:{ports.extra}",
            ]
        if flower.superlink.database is not None:
            args.append(f"--database={STATE_FILE}")
        return [*args, *flower.superlink.extra_args]

    def superexec_server_app(self) -> list[str]:
        """Beside the SuperLink. It dials the name that the certificate has, which its pod takes for itself."""
        if not self.new:
            # ServerAppIO knows no TLS in these versions: it never leaves the pod.
            port = self.flower.superlink.service.ports.server_app_io
            return ["--plugin-type=serverapp", f"--appio-api-address=127.0.0.1:{port}", "--insecure"]
        return [f"--runtime-api-address={self.link}:{self.link_port}", self._trust()]

    def supernode(self, extra: tuple[str, ...], node_config: str) -> list[str]:
        args = [
            f"--superlink={self.link}:{self.link_port}",
            f"--isolation={self.flower.isolation_mode}",
            self._trust(),
        ]
        if self.new:
            args += ["--host=127.0.0.1", f"--port={CLIENT_APP_PORT}"]
        else:
            args.append(f"--clientappio-api-address=127.0.0.1:{CLIENT_APP_PORT}")
        args += extra
        return [*args, f"--node-config={node_config}"] if node_config else args

    def superexec_client_app(self) -> list[str]:
        """Beside a SuperNode, over the pod's loopback."""
        address = f"127.0.0.1:{CLIENT_APP_PORT}"
        if self.new:
            return [f"--runtime-api-address={address}", "--insecure"]
        return ["--plugin-type=clientapp", f"--appio-api-address={address}", "--insecure"]

    def _trust(self) -> str:
        tls = self.flower.tls
        return "--insecure" if tls is None else f"--root-certificates={TLS_FOLDER}/{tls.authority_key}"


def version_of(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def spoken(version: str) -> bool:
    """Whether a version's command lines are known whole."""
    return not OLD_ENDS <= version_of(version) < NEW_BEGINS
