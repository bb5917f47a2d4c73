"""What the product is made of: pinned with hashes, not known to be vulnerable, without secrets, without pickles."""

import ast
import re
import subprocess
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parents[1]
LOCK: Final = ROOT / "requirements.lock"
ADVISORIES: Final = ROOT / "deploy" / "advisories.toml"

SECRETS: Final = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40,}"),
    "a NATS seed": re.compile(r"\bS[UANOC][A-Z2-7]{54,}\b"),
    "a cloud key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a forge token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|glpat-[A-Za-z0-9_-]{20,})"),
    "a service's key": re.compile(
        r"\b(?:AIza[0-9A-Za-z_-]{35}|xox[abprs]-[0-9A-Za-z-]{20,}|sk-[A-Za-z0-9_-]{32,}|hf_[A-Za-z0-9]{30,}"
        r"|pypi-[A-Za-z0-9_-]{50,})"
    ),
    "a web token": re.compile(r"\beyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}"),
    "a password in a URL": re.compile(r"[a-z]+://[^\s/:@\"'{}$<]+:(?!hush)[^\s/@\"'{}$<]{8,}@"),
}
"""What may stand in no file that Git keeps."""
RUNS_CODE: Final = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
"""Modules whose files run code when they are read."""


def locked() -> list[tuple[Requirement, int]]:
    """Every pin of the lock file, and how many hashes it has."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", LOCK.read_text(encoding="utf-8").replace("\\\n", " "))
    wanted = [entry for entry in entries if entry.strip() and not entry.startswith("#")]
    return [(Requirement(entry.partition("--hash")[0].strip()), entry.count("--hash=sha256:")) for entry in wanted]


def advisories() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads(ADVISORIES.read_text(encoding="utf-8"))["advisory"]
    return found


def tracked(*suffixes: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    if not any(listed):
        pytest.skip("no Git checkout: which files belong to the product is not known")
    return [
        ROOT / name for name in listed if name and (not suffixes or name.endswith(suffixes)) and (ROOT / name).is_file()
    ]


def test_everything_is_pinned_to_one_version_with_hashes() -> None:
    loose = [str(one) for one, hashes in locked() if not hashes or [each.operator for each in one.specifier] != ["=="]]
    assert not loose
    assert len(locked()) > 50


def test_nothing_that_is_locked_or_installed_is_known_to_be_vulnerable() -> None:
    versions = {(canonicalize_name(one.name), each.version) for one, _ in locked() for each in one.specifier} | {
        (canonicalize_name(one.metadata["Name"]), one.version) for one in distributions()
    }
    struck = [
        f"{package} {version}: {one['id']}, {one['says']}"
        for one in advisories()
        for package, version in sorted(versions)
        if package == one["package"] and SpecifierSet(one["versions"]).contains(version, prereleases=True)
    ]
    assert not struck


def test_an_advisory_would_be_noticed() -> None:
    for one in advisories():
        assert canonicalize_name(one["package"]) == one["package"]
        assert re.fullmatch(r"CVE-\d{4}-\d{4,}|GHSA(-[0-9a-z]{4}){3}|PYSEC-\d{4}-\d+", one["id"])
        upper = next(each.version for each in SpecifierSet(one["versions"]) if each.operator == "<")
        assert not SpecifierSet(one["versions"]).contains(upper), "what mends it is not affected"


@pytest.mark.parametrize("what", SECRETS)
def test_no_secret_is_in_any_file(what: str) -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0][:16]}…" for match in SECRETS[what].finditer(text)]
    assert not found


def test_a_secret_would_be_noticed() -> None:
    key = "-----BEGIN PRIVATE KEY-----\n" + "A" * 64
    for what, text in {
        "a private key": key,
        "a NATS seed": "SU" + "A" * 56,
        "a cloud key": "AKIA" + "A" * 16,
        "a forge token": "ghp_" + "a" * 36,
        "a service's key": "hf_" + "a" * 34,
        "a web token": ".".join(["eyJ" + "a" * 24] * 2 + ["b" * 24]),
        "a password in a URL": "nats://user:" + "correcthorse@hub",
    }.items():
        assert SECRETS[what].search(text), what


def test_nothing_that_is_read_can_run_code() -> None:
    """No pickles, and of torch only what reads safetensors or nothing: ``torch.load`` is a pickle."""
    found = []
    for path in tracked(".py"):
        if "src" not in path.relative_to(ROOT).parts:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        for node in ast.walk(tree):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                modules = ["pickle"] if (node.value.id, node.attr) in (("torch", "load"), ("torch", "save")) else []
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                modules = ["pickle"] if node.func.id in ("eval", "exec") else []
            if {name.partition(".")[0] for name in modules} & RUNS_CODE:
                found.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}")
    assert not found


def test_the_security_page_names_tests_that_there_are() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:libs|services|tests)/[\w/.-]+\.py", page))
    assert len(named) > 15
    assert not [name for name in sorted(named) if not (ROOT / name).is_file()]
