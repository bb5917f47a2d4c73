"""What k0rdent would make of a fleet: each cluster's chart with its config, and each of our services' charts with its
values as they are filled in for each cluster that the labels choose. Rendered once before anybody applies it, so that a
wrong value is told here and not by a reconciler at three sites.

Charts of other projects are not here; their values are passed on as they are.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from windfall.cli.gitops.charts import rendered
from windfall.cli.gitops.documents import Object
from windfall.servicekit.errors import Mistake

_LABEL: Final = re.compile(r'\{\{\s*index \.Cluster\.metadata\.labels "([^"]+)"\s*\}\}')
_ENDPOINT: Final = re.compile(r"\{\{\s*\.Cluster\.spec\.controlPlaneEndpoint\.(host|port)\s*\}\}")
_NAME: Final = re.compile(r"\{\{\s*\.Cluster\.metadata\.(name|namespace)\s*\}\}")


def our_charts(deploy: Path) -> dict[str, Path]:
    """Name of a chart → its folder."""
    folders = (path.parent for path in sorted(deploy.glob("**/Chart.yaml")))
    return {yaml.safe_load((folder / "Chart.yaml").read_text(encoding="utf-8"))["name"]: folder for folder in folders}


def expanded(objects: Sequence[Object], charts: Mapping[str, Path]) -> dict[str, tuple[Object, ...]]:
    """``cluster`` and ``cluster/service`` → what is installed there, as far as the charts are ours.

    Raises:
        Mistake: naming the cluster and the service whose values are wrong.
    """
    made: dict[str, tuple[Object, ...]] = {}
    by_name = {(obj["kind"], obj["metadata"]["name"]): obj for obj in objects}
    for cluster in _of(objects, "ClusterDeployment"):
        name, namespace = cluster["metadata"]["name"], cluster["metadata"]["namespace"]
        chart = charts.get(_chart(by_name, "ClusterTemplate", cluster["spec"]["template"]))
        if chart is not None:
            credential = by_name["Credential", cluster["spec"]["credential"]]["spec"]
            values = {**cluster["spec"]["config"], "clusterIdentity": {"name": credential["identityRef"]["name"]}}
            made[name] = _told(f"the cluster {name}", chart, values, name, namespace)
        for service in _services(objects, cluster):
            chart = charts.get(_chart(by_name, "ServiceTemplate", service["template"]))
            if chart is None:
                continue
            values = yaml.safe_load(filled(service.get("values", ""), cluster)) or {}
            where = f"the service {service['name']} of the cluster {name}"
            made[f"{name}/{service['name']}"] = _told(where, chart, values, service["name"], service["namespace"])
    return made


def filled(values: str, cluster: Object) -> str:
    """Values with what k0rdent's state manager fills in from a cluster; an expression that is not known here stays."""
    labels = cluster["spec"]["config"].get("clusterLabels", {})
    endpoint = {"host": "192.0.2.1", "port": "6443"}
    text = _LABEL.sub(lambda found: str(labels.get(found[1], "<no value>")), values)
    text = _ENDPOINT.sub(lambda found: endpoint[found[1]], text)
    return _NAME.sub(lambda found: cluster["metadata"][found[1]], text)


def _services(objects: Sequence[Object], cluster: Object) -> Iterator[dict[str, Any]]:
    labels = cluster["metadata"]["labels"]
    for chosen in _of(objects, "MultiClusterService"):
        if chosen["spec"]["clusterSelector"]["matchLabels"].items() <= labels.items():
            yield from chosen["spec"]["serviceSpec"]["services"]


def _of(objects: Sequence[Object], kind: str) -> list[Object]:
    return [obj for obj in objects if obj["kind"] == kind]


def _chart(by_name: Mapping[tuple[str, str], Object], kind: str, name: str) -> str:
    template = by_name.get((kind, name))
    if template is None:
        raise Mistake(f"{kind} {name} is used and not there", "Name it among the fleet's charts")
    chart: str = template["spec"]["helm"]["chartSpec"]["chart"]
    return chart


def _told(where: str, chart: Path, values: Mapping[str, Any], name: str, namespace: str) -> tuple[Object, ...]:
    try:
        return rendered(chart, values, name, namespace)
    except Mistake as mistake:
        raise Mistake(f"{where}: {mistake.cause}", mistake.cure, mistake.exit_code) from mistake
