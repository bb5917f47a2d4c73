"""The CustomResourceDefinitions: structural, small, as they lie in ``deploy/crds``, and true to the models."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from windfall.contracts.resources import Federation, Site
from windfall.contracts.resources.fields import iso
from windfall.provisioner.definitions.__main__ import rendered
from windfall.provisioner.definitions.crds import crds
from windfall.provisioner.definitions.schema import structural
from windfall.servicekit.kube import Cluster
from windfall.servicekit.kube.kinds import CRD

ROOT = Path(__file__).resolve().parents[4]
EXAMPLES = sorted((ROOT / "deploy" / "examples").glob("*.yaml"))

PEER = {
    "spec": "mode isolationMode version insecure superlink supernodes",
    "superlink": (
        "image superexecImage resources superexecResources env extraArgs podTemplate service volumes volumeMounts "
        "superexecVolumeMounts volumeClaimTemplates"
    ),
    "superlink.service": "type ports labels annotations",
    "superlink.service.ports": "grpc serverAppIo extra",
    "superlink.volumeClaimTemplates[]": "metadata spec",
    "superlink.volumeClaimTemplates[].metadata": "name labels annotations",
    "supernodes": "image env pools",
    "supernodes.pools[]": (
        "name replicas images gpu supernodeResources superexecResources podTemplate extraArgs env volumes volumeMounts "
        "superexecVolumeMounts volumeClaimTemplates nodeConfig"
    ),
    "supernodes.pools[].images": "supernode superExecClientApp",
    "supernodes.pools[].gpu": "enabled vendor resourceName count mountAll",
}
"""Every field of the spec of flwr.exalsius.ai/v1 Federation (exalsius/flower-operator at bc0c510)."""


def schemas(name: str) -> dict[str, Any]:
    version = crds()[name]["spec"]["versions"][0]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def every(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, of in schema.get("properties", {}).items():
        yield from every(of, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(key), dict):
            yield from every(schema[key], path + mark)


@pytest.mark.parametrize("file", ["sites.yaml", "federations.yaml"])
def test_what_lies_in_deploy_is_what_the_models_say(file: str) -> None:
    lies = (ROOT / "deploy" / "crds" / file).read_text(encoding="utf-8")
    assert lies == rendered()[file], "run `make crds`"
    assert len(lies.encode()) < 64 * 1024


@pytest.mark.parametrize("name", ["sites", "federations"])
def test_schemas_are_structural(name: str) -> None:
    for path, schema in every(schemas(name)):
        open_ = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string")
        assert "type" in schema or open_, path
        assert not {"$ref", "anyOf", "oneOf", "allOf", "title", "const", "$defs", "patternProperties"} & set(schema), (
            path
        )
        assert not ("properties" in schema and "additionalProperties" in schema), path
        assert schema.get("default") != "", f"{path}: older servers cannot read an empty default"
        assert not re.search(r"\(\?[=!<]", schema.get("pattern", "")), f"{path}: Go's expressions look nowhere else"
        if keys := schema.get("x-kubernetes-list-map-keys"):
            assert set(keys) <= set(schema["items"]["required"]), path


def test_a_federation_takes_every_field_that_flower_operators_takes() -> None:
    fields: dict[str, set[str]] = {}
    for path, schema in every(schemas("federations")["properties"]["spec"]["properties"]["flower"], "spec"):
        fields[path.removeprefix("spec.") or "spec"] = set(schema.get("properties", ()))
    for path, names in PEER.items():
        assert set(names.split()) <= fields[path], path


def test_conditions_have_types_as_keys_and_columns_have_paths() -> None:
    for name, crd in crds().items():
        version = crd["spec"]["versions"][0]
        status = schemas(name)["properties"]["status"]["properties"]
        assert status["conditions"]["x-kubernetes-list-map-keys"] == ["type"]
        assert version["subresources"] == {"status": {}}
        assert crd["spec"]["names"]["shortNames"]
        assert "windfall" in crd["spec"]["names"]["categories"]
        for column in version["additionalPrinterColumns"]:
            root, _, path = column["jsonPath"].removeprefix(".").partition(".")
            assert (
                root == "metadata"
                or path.partition("[")[0].split(".")[0] in schemas(name)["properties"][root]["properties"]
            )


@pytest.mark.parametrize("example", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_examples_are_valid_and_come_back_as_they_are(example: Path) -> None:
    for document in yaml.safe_load_all(example.read_text(encoding="utf-8")):
        if not document["apiVersion"].startswith("windfall.dev/"):
            continue
        model = {"Site": Site, "Federation": Federation}[document["kind"]]
        read = model.model_validate(document)
        said = json.loads(read.model_dump_json(by_alias=True, exclude_unset=True))
        assert said == document
        Draft202012Validator(_strict(structural(model))).validate(document)


def test_there_are_examples() -> None:
    assert EXAMPLES


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=364)))
def test_every_duration_that_is_written_is_taken_by_the_schema(duration: timedelta) -> None:
    pattern = schemas("sites")["properties"]["spec"]["properties"]["signal"]["properties"]["dwell"]["pattern"]
    # From a year on pydantic writes years, which no setting needs.
    assert re.fullmatch(pattern, iso(duration))


async def test_a_real_server_takes_them(cluster: Cluster) -> None:
    for crd in crds().values():
        found = await cluster.get(CRD, crd["metadata"]["name"])
        assert found is not None
        conditions = {one["type"]: one for one in found["status"]["conditions"]}
        assert conditions["Established"]["status"] == "True"
        assert "NonStructuralSchema" not in conditions or conditions["NonStructuralSchema"]["status"] == "False"


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Unknown fields are refused, as a server prunes them; metadata is Kubernetes' own."""
    strict = dict(schema)
    if strict.get("x-kubernetes-preserve-unknown-fields"):
        return strict
    if "properties" in strict:
        strict["properties"] = {
            key: of if key == "metadata" else _strict(of) for key, of in strict["properties"].items()
        }
        strict["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(strict.get(key), dict):
            strict[key] = _strict(strict[key])
    return strict
