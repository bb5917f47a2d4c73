"""All of a fleet on one live page."""

import sys
from pathlib import Path

import click

from windfall.cli.commands.options import server as on_server
from windfall.cli.commands.options import wait_for

_file = click.Path(path_type=Path)


@click.command()
@on_server
@click.option("--listen", default="127.0.0.1:8400", show_default=True, metavar="HOST:PORT", help="Port 0: a free one.")
@click.option("--tls-certificate", type=_file, metavar="FILE", help="PEM, to serve over HTTPS.")
@click.option("--tls-key", type=_file, metavar="FILE", help="Its private key.")
@click.option("--tls-authority", type=_file, metavar="FILE", help="Browsers need a certificate signed by it.")
@click.option("--insecure", is_flag=True, help="Serve beyond loopback without TLS: anybody on the network can read.")
@click.option("--trace-url", metavar="URL", help="Jaeger's address, or any URL with {trace_id} in it.")
def web(
    server: str,
    listen: str,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_authority: Path | None,
    insecure: bool,
    trace_url: str | None,
) -> None:
    """Serve one page that shows the fleet live: sites, windows, loss, rounds, events and what is wrong.

    It reads what `windfall get` reads, changes nothing, and needs nothing from elsewhere.
    """
    from windfall.cli.web.listening import door
    from windfall.cli.web.serving import serve

    opened = door(listen, tls_certificate, tls_key, tls_authority, insecure=insecure)
    wait_for(serve(server, opened, trace_url, lambda text: print(f"windfall: {text}", file=sys.stderr, flush=True)))
