"""``windfall context``: which hub, with which keys, and what counts more than it."""

import asyncio
import json
import ssl
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.commanded import ran
from windfall.cli.contexts import (
    Context,
    Contexts,
    changed,
    chosen,
    in_toml,
    place,
    read,
    variables,
    without,
    write,
)
from windfall.cli.keys import issued, place_of
from windfall.cli.nkeys import made
from windfall.cli.refusals import unreachable
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.natsserver import NatsServer, ServerPlan, find_binary, free_port
from windfall.servicekit.tls import Tls

HUB = Context("hub", server="tls://hub.example.org:4222")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return place({"XDG_CONFIG_HOME": str(tmp_path)})


def test_where_the_file_lies() -> None:
    assert place({"XDG_CONFIG_HOME": "/x"}) == Path("/x/windfall/contexts.toml")
    for relative in ("", "x"):
        assert place({"XDG_CONFIG_HOME": relative, "HOME": "/home/u"}) == Path("/home/u/.config/windfall/contexts.toml")


def test_what_is_written_is_read_again_and_is_its_owners_alone(file: Path, tmp_path: Path) -> None:
    keys = {}
    for name in ("authority", "certificate", "key", "nkey_file", "tls_authority", "tls_certificate", "tls_key"):
        (tmp_path / name).write_text("")
        keys[name] = str(tmp_path / name)
    told = {"server": HUB.server, "tls_first": True, "coordinator": "hub:9500,standby:9500"}
    known = changed(read(file), "hub", {**told, **keys})
    known = changed(known, "site-a.b", {"server": "nats://127.0.0.1:4223"})
    assert known.current == "hub"
    write(file, known)
    assert read(file) == known
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert list(file.parent.iterdir()) == [file]
    less = changed(known, "hub", {"nkey_file": "", "certificate": "", "key": ""})
    assert (less.all["hub"].nkey_file, less.all["hub"].authority) == ("", keys["authority"])
    assert without(less, "hub") == Contexts({"site-a.b": known.all["site-a.b"]}, "")


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"server": "hub:4222"}, "is no address of a NATS server"),
        ({"server": "tls://user:secret@hub:4222"}, "holds a password or a token"),
        ({}, "the context hub has no server"),
        ({"server": "tls://hub:4222", "nkey_file": "SU" + "A" * 56}, "--nkey-file is a secret itself"),
        ({"server": "tls://hub:4222", "key": "-----BEGIN PRIVATE KEY-----"}, "--key is a secret itself"),
        ({"server": "tls://hub:4222", "authority": "/gone"}, "there is no file /gone"),
        ({"server": "tls://hub:4222", "certificate": "pyproject.toml"}, "a certificate or a key alone"),
        ({"server": "tls://hub:4222", "coordinator": "hub"}, "'hub' is no address of a coordinator"),
        ({"server": "tls://hub:4222", "coordinator": "hub:9500, https://hub:9501"}, "is no address of a coordinator"),
        ({"server": "tls://hub:4222", "tls_authority": "pyproject.toml"}, "a part of what gRPC needs"),
        ({"server": "tls://hub:4222", "tls_key": "SU" + "A" * 56}, "--tls-key is a secret itself"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_never_repeated(values: dict[str, str | bool], cause: str) -> None:
    root = Path(__file__).parents[3]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        with pytest.raises(Mistake, match=cause) as refusal:
            changed(Contexts({}), "hub", values)
    assert "secret@" not in str(refusal.value) and "SUAAA" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("current = ", "is no TOML"),
        ("contexts = 3", "has no tables"),
        ("[contexts.hub]\nservr = 'x'", "has no 'servr'. Did you mean server?"),
        ("[contexts.hub]\nserver = 3", "server of the context hub is no text"),
    ],
)
def test_a_file_that_is_none(file: Path, text: str, cause: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(Mistake, match=cause.replace("?", "[?]")):
        read(file)


def test_who_could_be_sent_elsewhere_is_told(file: Path) -> None:
    write(file, Contexts({"hub": HUB}, "hub"))
    file.chmod(0o660)
    with pytest.raises(Mistake, match=r"others may write to .*\. Run `chmod 600"):
        read(file)


def test_what_counts_more_than_a_context() -> None:
    full = replace(HUB, authority="/a", certificate="/c", key="/k", tls_first=True)
    assert variables(full, {}) == {
        "WINDFALL_NATS_URL": HUB.server,
        "WINDFALL_NATS_AUTHORITY": "/a",
        "WINDFALL_NATS_CERTIFICATE": "/c",
        "WINDFALL_NATS_KEY": "/k",
        "WINDFALL_NATS_TLS_FIRST": "true",
    }
    environ = {"WINDFALL_NATS_URL": "tls://x", "WINDFALL_NATS_CERTIFICATE": "/other"}
    assert variables(full, environ) == {"WINDFALL_NATS_AUTHORITY": "/a", "WINDFALL_NATS_TLS_FIRST": "true"}


def test_which_one_counts(file: Path, tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    with pytest.raises(Mistake, match=r"no context counts\. Make one"):
        chosen(environ)
    write(file, Contexts({"hub": HUB, "hut": replace(HUB, name="hut")}))
    with pytest.raises(Mistake, match=r"no context counts\. Choose one"):
        chosen(environ)
    assert chosen({**environ, "WINDFALL_CONTEXT": "hub"})[1] == HUB
    assert chosen({**environ, "WINDFALL_CONTEXT": "hub"}, "hut")[1].name == "hut"
    with pytest.raises(Mistake, match=r"unknown context 'hubb'\. Did you mean hub"):
        chosen(environ, "hubb")


def test_a_name_of_any_letters_is_quoted() -> None:
    assert in_toml(Contexts({"a.b": Context("a.b", 'tls://"x')})) == '[contexts."a.b"]\nserver = "tls://\\"x"\n'


# --- with a server ----------------------------------------------------------------------------------------------------


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[tuple[ServerPlan, Tls, Path]]:
    """How a hub is started that asks for a certificate, and the keys of its folder."""
    lasts = timedelta(days=9)
    list(issued(tmp_path / "keys", [place_of("hub")], lasts, datetime.now(UTC)))
    folder = tmp_path / "keys" / "hub"
    tls = Tls(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    yield ServerPlan("hub", free_port(), tmp_path / "store", tls=tls), tls, tmp_path


async def test_a_context_is_made_chosen_and_used(closed: tuple[ServerPlan, Tls, Path]) -> None:
    plan, tls, folder = closed
    home = {"XDG_CONFIG_HOME": str(folder / "config")}
    files = ["--authority", str(tls.authority), "--certificate", str(tls.certificate), "--key", str(tls.key)]
    code, out, err = await ran("context", "set", "hub", "--server", plan.url, *files, **home)
    assert (code, err) == (0, "")
    assert out.endswith("; it counts\n")
    assert (await ran("context", "set", "away", "--server", "nats://127.0.0.1:1", **home))[0] == 0
    code, out, _ = await ran("context", "list", "-o", "json", **home)
    assert [(one["name"], one["current"]) for one in json.loads(out)["items"]] == [("away", ""), ("hub", "yes")]
    server = NatsServer(plan, folder / "nats")
    await server.start()
    try:
        # It was let in: there is only nothing yet.
        code, _, err = await ran("dlq", "list", **home)
        assert (code, err.startswith("windfall: the server has no stream DEAD")) == (ExitCode.SERVER, True)
        code, _, err = await ran("dlq", "list", "--context", "away", **home)
        assert (code, "no NATS server at nats://127.0.0.1:1" in err) == (ExitCode.SERVER, True)
        code, _, err = await ran("dlq", "list", WINDFALL_CONTEXT="away", **home)
        assert "no NATS server at nats://127.0.0.1:1" in err
        code, _, err = await ran("dlq", "list", "--context", "away", "--server", plan.url, **home)
        assert (code, err.count("\n")) == (ExitCode.SERVER, 1)
        assert "is not believed" in err and "--authority FILE" in err
        code, _, err = await ran("dlq", "list", "--context", "hubb", **home)
        assert (code, err) == (2, "windfall: unknown context 'hubb'. Did you mean hub?\n")
    finally:
        await server.stop()
    code, out, _ = await ran("context", "use", "away", **home)
    assert (code, out) == (0, "away counts: nats://127.0.0.1:1\n")
    code, _, err = await ran("context", "delete", "away", **home)
    assert (code, "say --yes" in err) == (2, True)
    assert (await ran("context", "delete", "away", "--yes", **home))[:2] == (0, "away is forgotten\n")
    code, _, err = await ran("context", "show", **home)
    assert (code, err) == (2, "windfall: no context counts. Choose one with `windfall context use`\n")


@asynccontextmanager
async def knowing(public: str, folder: Path) -> AsyncIterator[str]:
    """A server that lets this key in and no other."""
    port = free_port()
    config = folder / "nats.conf"
    config.write_text(f"listen: 127.0.0.1:{port}\nauthorization {{ users: [{{ nkey: {public} }}] }}\n")
    process = await asyncio.create_subprocess_exec(find_binary(), "-c", config, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        while b"Server is ready" not in await process.stderr.readline():
            assert process.returncode is None
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.communicate()


async def test_a_key_that_the_server_does_not_know_is_told_at_once(tmp_path: Path) -> None:
    _, theirs = (line.split(": ")[1] for line in made(tmp_path, ("ours", "theirs")))
    async with knowing(theirs, tmp_path) as url:
        for environ in ({}, {"WINDFALL_NATS_NKEY_FILE": str(tmp_path / "ours.nk")}):
            code, _, err = await ran("get", "sites", url=url, **environ)
            (line,) = err.splitlines()
            assert code == ExitCode.SERVER
            assert line.startswith(
                f"windfall: the NATS server at {url} does not know our key. Show it one that it knows:"
            )
        _, _, err = await ran("get", "sites", url=url, WINDFALL_NATS_NKEY_FILE=str(tmp_path / "theirs.nk"))
        # It was let in: there is only no JetStream.
        assert err.startswith("windfall: the server has no stream EVENTS")


@pytest.mark.parametrize(
    ("why", "cure"),
    [
        ("certificate is not yet valid", "Set the clock of this machine by NTP, or wait until it is valid"),
        ("certificate has expired", "Set the clock of this machine by NTP; if that is right"),
        ("Hostname mismatch, certificate is not valid for 'x'.", "Say the address by a name that stands in"),
        ("self-signed certificate in certificate chain", "Say who signed it: WINDFALL_NATS_AUTHORITY"),
    ],
)
def test_a_certificate_that_is_not_believed_has_a_cure(why: str, cure: str) -> None:
    error = ssl.SSLCertVerificationError(1, why)
    error.verify_message = why
    told = unreachable("tls://x:4222", error)
    assert (told.exit_code, told.cure.startswith(cure)) == (ExitCode.SERVER, True)
