"""Ports for servers that start later: nobody else is given one of them meanwhile."""

import socket
from pathlib import Path

import pytest

from windfall.servicekit import natsserver
from windfall.servicekit.natsserver import free_port


def test_a_port_is_given_once_and_apart_from_what_the_system_gives() -> None:
    ports = [free_port() for _ in range(300)]
    assert len(set(ports)) == len(ports)
    lowest, highest = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if lowest > 30_000:
        assert not [port for port in ports if lowest <= port <= highest]


def test_what_is_held_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", free_port()))
        holder.listen()
        held = holder.getsockname()[1]
        free = free_port()
        monkeypatch.setattr(natsserver, "_ASKED_FOR", range(min(held, free), max(held, free) + 1, abs(held - free)))
        monkeypatch.setattr(natsserver, "_given", set[int]())
        assert free_port() == free


def test_where_the_system_gives_every_port_it_is_one_of_its(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(natsserver, "_kept_apart", lambda: False)
    assert free_port() > 1024
