"""What a person does wrong, and the one line that each gets: where, why, and what to do."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.charts.value_sets import SETS, changed, values
from windfall.servicekit.errors import Mistake

SEED = "SU" + "A" * 56
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"

WRONG: Mapping[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    # --- said by the templates, cause and cure ---
    "a moving tag": (
        "hub",
        {"images": {"tag": "latest"}},
        ("images.tag: latest moves under a running release", "name a version"),
    ),
    "a site called hub, at the hub": ("hub", {"sites": ["hub"]}, ("sites: a site cannot be called hub",)),
    "a site called hub": ("site", {"site": "hub"}, ("site: hub is the hub's own domain", "another name")),
    "no key of a site": (
        "hub",
        {"sites": ["quebec", "texas", "oregon"]},
        ("nats.leaves: the site oregon has no key", "public one"),
    ),
    "a key of no site": ("hub", {"sites": ["quebec"]}, ("nats.leaves: texas is none of sites",)),
    "no key of a service": ("hub", {"nats": {"users": None}}, ("nats.users: federation-coordinator has no key",)),
    "no key of the operator": ("hub", {"operator": {"enabled": True}}, ("nats.users: operator has no key",)),
    "one key for two": (
        "hub",
        {"sites": ["quebec"], "nats": {"users": {"federation-coordinator": PUBLIC}, "leaves": None}},
        ("nats.leaves: the site quebec has no key",),
    ),
    "the same key twice": (
        "site",
        {"nats": {"users": {"profiler": PUBLIC, "provisioner": PUBLIC}}},
        ("nats.users: two have one key", "make a key for each"),
    ),
    "a tenant that is there already": (
        "hub",
        {"nats": {"tenants": {"default": {"users": {}}}}},
        ("nats.tenants: default is the tenant that is always there", "another name"),
    ),
    "a tenant with another's key": (
        "hub",
        {"nats": {"users": {"federation-coordinator": PUBLIC}, "tenants": {"lab": {"users": {"admin": PUBLIC}}}}},
        ("nats.users, nats.leaves: two have one key",),
    ),
    "tenants without room": (
        "hub",
        {"nats": {"tenants": {"lab": {"users": {}, "maxBytes": "1TB"}}}},
        ("nats.tenants: they may store 1048576 MB, and all of the server 8GB", "nats.storage.maxBytes"),
    ),
    "a loan to nobody": (
        "hub",
        {"nats": {"loans": [{"lender": "default", "borrower": "lab", "fact": "window.opened", "whom": "quebec"}]}},
        ("nats.loans: lab is none of nats.tenants",),
    ),
    "a loan of no fact": (
        "hub",
        {"nats": {"loans": [{"lender": "default", "borrower": "default", "fact": "window.sold", "whom": "quebec"}]}},
        ("nats.loans: window.sold is no fact", "window.opened", "lends itself"),
    ),
    "a seed for a public key": ("hub", {"nats": {"users": {"admin": SEED}}}, ("/nats/users/admin",)),
    "two servers": ("hub", {"nats": {"replicas": 2}}, ("nats.replicas: 2 servers", "say 1, 3 or 5")),
    "plain text to NATS": (
        "site",
        {"nats": {"hub": "nats-leaf://hub:7422"}},
        ("nats.hub: nats-leaf:// is plain text", "tls.mode: insecure"),
    ),
    "plain text to one's own NATS": (
        "hub",
        {"nats": {"enabled": False, "url": "nats://nats:4222"}},
        ("nats.url: nats:// is plain text", "say tls://"),
    ),
    "a credential in a url": (
        "site",
        {"nats": {"enabled": False, "url": "tls://me:hunter2@nats:4222"}},
        ("nats.url: it holds a credential", "nats.nkeySecret"),
    ),
    "a credential in the leaf's url": (
        "site",
        {"nats": {"hub": "tls://me:hunter2@hub:7422"}},
        ("nats.hub: it holds a credential", "leaf.nk"),
    ),
    "a credential for telemetry": (
        "site",
        {"telemetry": {"endpoint": "https://me:hunter2@collector:4317"}},
        ("telemetry.endpoint: it holds a credential", "telemetry.headersSecret"),
    ),
    "no port of the hub": (
        "site",
        {"nats": {"hub": "tls://hub.example.org"}},
        ("nats.hub: no port", "tls://HOST:7422"),
    ),
    "no hub": ("site", {"nats": {"hub": ""}}, ("nats.hub: missing", "as the hub's leaf service has it")),
    "no server at all": ("site", {"nats": {"enabled": False}}, ("nats.url: missing, and nats.enabled is false",)),
    "two servers to choose from": (
        "hub",
        {"nats": {"url": "tls://nats:4222"}},
        ("nats.url: given, and this chart brings a server", "nats.enabled: false"),
    ),
    "keys that nobody asks for": (
        "hub",
        {"nats": {"nkeySecret": ""}},
        ("nats.users: given, and nobody is asked for a key", "nats.leaves: given"),
    ),
    "no certificate": ("hub", {"tls": {"secret": ""}}, ("tls.secret: empty", "or say tls.mode: insecure")),
    "no certificate of NATS": ("site", {"nats": {"secret": ""}}, ("nats.secret: empty",)),
    "nobody who signs": (
        "site",
        {"tls": {"mode": "cert-manager"}},
        ("tls.issuer.name: missing", "name an Issuer or ClusterIssuer"),
    ),
    "no coordinator and nobody who makes one": (
        "hub",
        {"coordinator": {"enabled": False}},
        ("coordinator.enabled: false, and no operator", "operator.enabled: true"),
    ),
    "rows that are counted": (
        "hub",
        {"coordinator": {"corpusClaim": "corpus", "settings": {"WINDFALL_CORPUS_ROWS": "5"}}},
        ("coordinator.settings.WINDFALL_CORPUS_ROWS", "leave it out"),
    ),
    "what the chart says itself": (
        "site",
        {"trainer": {"settings": {"WINDFALL_COORDINATOR": "elsewhere:1"}}},
        ("trainer.settings.WINDFALL_COORDINATOR: the chart says it itself", "leave it out"),
    ),
    "no data": ("site", {"trainer": {"dataClaim": ""}}, ("trainer.dataClaim: missing", "PersistentVolumeClaim")),
    "GPUs of nobody": ("site", {"trainer": {"gpus": 8}}, ("trainer.vendor: none, and each trainer takes 8 GPUs",)),
    "no GPUs of somebody": ("site", {"trainer": {"vendor": "amd"}}, ("trainer.gpus: 0, and the vendor is amd",)),
    "dedicated, and which": (
        "site",
        {"trainer": {"dedicated": True}},
        ("trainer.dedicated: true, and trainer.nodeSelector does not say which nodes",),
    ),
    "a management cluster that nobody opens": (
        "site",
        {"provisioner": {"backend": "cluster-api"}},
        ("provisioner.kubeconfigSecret: missing, and cluster-api works in a management cluster",),
    ),
    "somebody else's namespace": (
        "site",
        {"provisioner": {"kubeNamespace": "other"}},
        ("provisioner.kubeNamespace: given", "leave it out"),
    ),
    "scraped, and how": (
        "site",
        {"metrics": {"prometheus": {"enabled": True}}},
        ("metrics.prometheus.clientSecret: missing", "or say metrics.prometheus.insecure: true"),
    ),
    "scraped over TLS and not": (
        "hub",
        {"metrics": {"prometheus": {"enabled": True, "insecure": True, "clientSecret": "p"}}},
        ("metrics.prometheus: clientSecret and insecure", "leave one out"),
    ),
    "scraped under which name": (
        "hub",
        {"metrics": {"prometheus": {"enabled": True, "clientSecret": "p"}}},
        ("metrics.prometheus.serverName: missing", "tls.secret"),
    ),
    "nothing to scrape": (
        "site",
        {"metrics": {"podMonitor": {"enabled": True}}},
        ("metrics.podMonitor.enabled: true, and no pod would answer", "metrics.prometheus.enabled: true"),
    ),
    "scraped twice": (
        "hub",
        {
            "metrics": {
                "prometheus": {"enabled": True, "insecure": True},
                "podMonitor": {"enabled": True},
                "serviceMonitor": {"enabled": True},
            }
        },
        ("metrics: podMonitor and serviceMonitor", "leave one out"),
    ),
    "scraped where health is": (
        "hub",
        {"metrics": {"prometheus": {"port": 8081}}},
        ("/metrics/prometheus/port",),
    ),
    "nothing that tells": ("site", {"signals": None, "rule": ""}, ("signals: empty", "name one")),
    "a rule over nothing": ("site", {"signals": None}, ("rule: given, and there are no signals",)),
    # --- said by the schema: where, and what it may be ---
    "a typo": ("hub", {"federaton": "gpt"}, ("federaton",)),
    "a typo further down": ("site", {"trainer": {"vendors": "amd"}}, ("/trainer", "vendors")),
    "a variable that no service reads": (
        "hub",
        {"coordinator": {"settings": {"WINDFALL_CODEX": "bf16"}}},
        ("/coordinator/settings", "WINDFALL_CODEX"),
    ),
    "a number for a variable": (
        "hub",
        {"coordinator": {"settings": {"WINDFALL_SEED": 7}}},
        ("/coordinator/settings/WINDFALL_SEED", "want string"),
    ),
    "no such mode": ("hub", {"tls": {"mode": "off"}}, ("/tls/mode", "'insecure'")),
    "no such vendor": ("site", {"trainer": {"vendor": "intel"}}, ("/trainer/vendor", "'amd'")),
    "no such backend": ("site", {"provisioner": {"backend": "process"}}, ("/provisioner/backend", "'kubernetes'")),
    "no such law": ("hub", {"jurisdictions": ["Canada"]}, ("/jurisdictions/0",)),
    "no such size": ("hub", {"storage": {"size": "100GB"}}, ("/storage/size",)),
    "no such port": ("hub", {"service": {"port": 70000}}, ("/service/port", "65,535")),
    "no digest": ("site", {"images": {"digests": {"profiler": "abc"}}}, ("/images/digests/profiler",)),
    "a name that is none": ("site", {"site": "Québec"}, ("/site",)),
    "a coordinator without a port": ("site", {"coordinator": "hub.example.org"}, ("/coordinator",)),
    "a token among the signals": (
        "site",
        {"signals": {"x": {"provider": "p", "api_token": "t"}}},
        ("signals.x.api_token: a credential", "signalsSecret"),
    ),
    "no sites": ("hub", {"sites": []}, ("/sites",)),
    "as root": ("hub", {"pods": {"user": 0}}, ("/pods/user",)),
    "no network at all": ("hub", {"networkPolicy": {"apiServer": []}}, ("/networkPolicy/apiServer",)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_gets_one_line(name: str) -> None:
    chart, change, said = WRONG[name]
    with pytest.raises(Mistake) as refused:
        changed(f"{chart}/example", change)
    text = str(refused.value)
    assert "\n" not in text and "hunter2" not in text
    for part in said:
        assert part in text, text


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(Mistake) as refused:
        changed("site/example", {"site": "hub", "trainer": {"dataClaim": ""}, "nats": {"hub": ""}})
    assert str(refused.value).count(" | ") == 2


@pytest.mark.parametrize("chart", ["hub", "site"])
def test_each_value_that_is_needed_is_asked_for_by_name(chart: str) -> None:
    """A set without one of its keys renders, or says which is missing."""
    for key in values(f"{chart}/minimal"):
        with pytest.raises(Mistake, match=f"'?{key}'?|{key}"):
            changed(f"{chart}/minimal", {key: None})


def test_no_set_is_a_mistake() -> None:
    assert all(changed(name, {}) for name in SETS)
