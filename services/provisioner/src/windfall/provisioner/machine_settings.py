"""What the backends of machines are told beside their site's settings."""

from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationError

from windfall.provisioner.kube_settings import KubeSettings
from windfall.provisioner.manifests.cluster_parameters import ClusterApiParameters
from windfall.provisioner.manifests.k0rdent import K0rdentParameters


def _json(model: type[ClusterApiParameters] | type[K0rdentParameters], given: object) -> object:
    if not isinstance(given, str):
        return given
    try:
        return model.model_validate_json(given)
    except ValidationError as error:
        raise ValueError("; ".join(_line(fault["loc"], fault["msg"]) for fault in error.errors())) from error


def _line(where: tuple[int | str, ...], message: str) -> str:
    said = message.removeprefix("Value error, ")
    return f"{'.'.join(str(step) for step in where)}: {said}" if where else said


def cluster_api_parameters(text: str) -> ClusterApiParameters:
    """
    Raises:
        ValueError: they are not right; the message says which, in one line.
    """
    said = _json(ClusterApiParameters, text)
    assert isinstance(said, ClusterApiParameters)
    return said


def _cluster_api(given: object) -> object:
    return _json(ClusterApiParameters, given)


def _k0rdent(given: object) -> object:
    return _json(K0rdentParameters, given)


class ClusterApiSettings(KubeSettings):
    """Of the backend ``cluster-api``; the API server is the management cluster's."""

    cluster_api: Annotated[ClusterApiParameters, BeforeValidator(_cluster_api)] = Field()
    """JSON: see docs/capacity.md."""


class K0rdentSettings(KubeSettings):
    """Of the backend ``k0rdent``; the API server is the management cluster's."""

    k0rdent: Annotated[K0rdentParameters, BeforeValidator(_k0rdent)] = Field()
    """JSON: see docs/capacity.md."""
