"""docs/operations.md, *On Kubernetes*: its commands are run where files are all that they need, and what they make is
held against what the charts want."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from cryptography import x509

from tests.charts.value_sets import CHARTS, ROOT
from windfall.cli.commands.running import keys, nkeys
from windfall.cli.gitops.charts import rendered
from windfall.cli.gitops.documents import Object

PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
RELEASES = {"hub": "windfall-hub", "site": "windfall"}


def block(language: str, place: str) -> str:
    (found,) = re.findall(rf"```{language} {place}\n(.*?)```", PAGE, flags=re.DOTALL)
    return str(found)


def commands(place: str, program: str) -> list[list[str]]:
    lines = [shlex.split(line) for line in block("sh", place).splitlines()]
    return [words[1:] for words in lines if words[0] == program]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What every ``windfall`` command of the page makes; user → public key."""
    monkeypatch.chdir(tmp_path)
    public: dict[str, str] = {}
    for place in RELEASES:
        for command, *words in commands(place, "windfall"):
            said = CliRunner().invoke({"keys": keys, "nkeys": nkeys}[command], words)
            assert said.exit_code == 0, said.output
            if command == "nkeys":
                public |= dict(line.split(": ") for line in said.output.splitlines())
    return public


def objects(place: str, public: dict[str, str]) -> tuple[Object, ...]:
    """What the page's values render to, with the keys filled in."""
    values: dict[str, Any] = yaml.safe_load(block("yaml", place))
    values["nats"]["users"] = {name: public[name] for name in values["nats"]["users"]}
    if place == "hub":
        values["nats"]["leaves"] = {"quebec": public["leaf"]}
    return rendered(CHARTS / place, values, RELEASES[place], "windfall")


@pytest.mark.parametrize("place", RELEASES)
def test_the_secrets_hold_what_pods_mount_under_the_names_that_they_mount(place: str, made: dict[str, str]) -> None:
    there = {
        words[5]: {path.name for path in Path(words[-1].removeprefix("--from-file=")).iterdir()}
        for words in commands(place, "kubectl")
        if "secret" in words
    }
    wanted: dict[str, set[str]] = {}
    for obj in objects(place, made):
        if obj["kind"] not in ("StatefulSet", "Deployment"):
            continue
        pod = obj["spec"]["template"]["spec"]
        for volume in pod["volumes"]:
            if "secret" in volume:
                items = {item["key"] for item in volume["secret"].get("items", ())}
                wanted.setdefault(volume["secret"]["secretName"], set()).update(items)
        for each in pod["containers"][0]["env"]:
            if (ref := each.get("valueFrom", {}).get("secretKeyRef")) is not None:
                wanted.setdefault(ref["name"], set()).add(ref["key"])
    assert wanted.keys() == there.keys()
    for name, names in wanted.items():
        assert names <= there[name]
        assert "tls" not in name or there[name] == {"tls.crt", "tls.key", "ca.crt"}


@pytest.mark.parametrize("place", RELEASES)
def test_the_certificates_hold_for_the_names_by_which_servers_are_asked(place: str, made: dict[str, str]) -> None:
    folder = {"hub": "hub", "site": "quebec"}[place]
    certificate = x509.load_pem_x509_certificate(Path("keys", folder, "tls.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    held = set(names.get_values_for_type(x509.DNSName))
    release = RELEASES[place]
    assert {f"{release}-nats.windfall.svc", f"*.{release}-nats-pods.windfall.svc"} <= held
    urls = {
        each["value"]
        for obj in objects(place, made)
        if obj["kind"] == "StatefulSet"
        for each in obj["spec"]["template"]["spec"]["containers"][0]["env"]
        if each["name"] == "WINDFALL_NATS_URL"
    }
    assert urls == {f"tls://{release}-nats.windfall.svc:4222"}
    if place == "hub":
        site = yaml.safe_load(block("yaml", "site"))
        assert {site["coordinator"].split(":")[0], re.split("[/:]+", site["nats"]["hub"])[1]} <= held


@pytest.mark.parametrize("place", RELEASES)
def test_helm_installs_that_chart_under_that_name(place: str) -> None:
    (words,) = commands(place, "helm")
    assert words[:4] == ["upgrade", "--install", RELEASES[place], f"deploy/charts/{place}"]
