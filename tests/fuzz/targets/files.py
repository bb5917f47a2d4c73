"""What a person writes, or hands over."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, decoders, models
from tokenizers.pre_tokenizers import ByteLevel

from tests.fuzz.target import Place, Target, of_file, text
from windfall.cli import contexts
from windfall.cli.checkpoints.tensors import header
from windfall.cli.checkpoints.tensors import read as read_model
from windfall.cli.declared.reading import read as read_declared
from windfall.cli.gitops.documents import in_files, in_order, in_yaml
from windfall.cli.gitops.documents import read as read_documents
from windfall.cli.profile import read as read_profile
from windfall.contracts.events import NodeProfiled
from windfall.contracts.profile import told as told_profile
from windfall.contracts.v1 import checkpoints_pb2 as pb
from windfall.energy_watcher.settings import WatcherSettings
from windfall.profiler.settings import ProfilerSettings
from windfall.provisioner.placement.ask import read as read_question
from windfall.provisioner.settings import ProvisionerSettings
from windfall.servicekit.errors import Mistake
from windfall.servicekit.settings import load
from windfall.site_trainer.policy_file import read_policy
from windfall.tasks.speech import read_wave
from windfall.tasks.task import DataError
from windfall.tasks.token_files import read_token_file
from windfall.tasks.tokens import read_tokenizer

_ROOT: Final = Path(__file__).parents[3]


def _contexts() -> Sequence[bytes]:
    return [
        b'current = "a"\n[contexts.a]\nserver = "tls://hub:4222"\ntls_first = true\n[contexts.b]\nserver = "nats://localhost"\n'
    ]


def _policies() -> Sequence[bytes]:
    return [
        b'jurisdiction = "CA"\njurisdictions = ["CA", "DE"]\nquiet = ["22:00-06:00"]\nzone = "Europe/Berlin"\n'
        b"least_tokens = 10\n[privacy]\nnorm = 1.0\nnoise = 1.1\nmost_epsilon = 8\n",
        b"",
        b'federations = ["demo"]\ncoordinators = ["*.example.org"]\ncodecs = ["topk-ef"]\nmost_bytes_per_day = 9\n',
    ]


def _policies_json() -> Sequence[bytes]:
    privacy = {"norm": 1.0, "noise": 1.1, "most_epsilon": 8}
    return [json.dumps({"jurisdiction": "DE", "quiet": ["22:00-06:00"], "privacy": privacy}).encode(), b"{}"]


def _profiles() -> Sequence[bytes]:
    body = json.loads((_ROOT / "libs/contracts/tests/golden/node.profiled.json").read_text())["body"]
    return [told_profile(NodeProfiled.model_validate(body)).model_dump_json(by_alias=True).encode()]


def _models() -> Sequence[bytes]:
    tensors = [pb.CheckpointTensor(name="a", shape=[2, 3]), pb.CheckpointTensor(name="b", tied_to="a")]
    head = pb.CheckpointHead(checkpoint=pb.Checkpoint(bytes=24), tensors=tensors)
    return [header(head, "demo", "7") + bytes(24)]


def _manifests() -> Sequence[bytes]:
    return [path.read_bytes() for path in sorted((_ROOT / "deploy/examples").glob("*.yaml"))]


def _documents(data: bytes) -> object:
    """As ``windfall`` writes them out again."""
    found = in_order(read_documents(text(data), "a template"))
    return in_yaml(found), in_files(found)


_APART: Final = b"\n=====\n"
_question = Place(".yaml")


def _questions() -> Sequence[bytes]:
    """A question, the nodes and the profiles that it refers to."""
    question = b"need: {gpus: 2}\nsites:\n- {site: quebec, nodes: nodes, pods: nodes, profiles: profiles}\n"
    allocatable = {"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": "8"}
    conditions = [{"type": "Ready", "status": "True"}]
    node = {"metadata": {"name": "gpu-0"}, "spec": {}, "status": {"allocatable": allocatable, "conditions": conditions}}
    said = json.loads((_ROOT / "libs/contracts/tests/golden/node.profiled.json").read_text())["body"]
    page = (_ROOT / "docs/placement.md").read_text().partition("```yaml\n")[2].partition("```")[0].encode()
    files = json.dumps({"items": [node]}).encode(), json.dumps(said | {"site": "quebec"}).encode()
    return [_APART.join((question, *files)), page, _APART.join((question.replace(b"pods: nodes, ", b""), *files))]


def _asked(data: bytes) -> object:
    question, nodes, profiles = (*data.split(_APART, 2), b"", b"")[:3]
    path = _question.holding(question)
    path.with_name("nodes").write_bytes(nodes)
    path.with_name("profiles").write_bytes(profiles)
    return read_question(path)


def _settings() -> Sequence[bytes]:
    return [
        b"WINDFALL_SITE=site-a\nWINDFALL_STATE_DIR=x\nWINDFALL_GRACE=PT10M\nWINDFALL_SURPLUS=carbon < 100\n"
        b'WINDFALL_SIGNALS={"carbon": {"provider": "static", "value": 42}}\nWINDFALL_CLOCK=system\n',
        b"WINDFALL_SITE=site-a\nWINDFALL_STATE_DIR=x\nWINDFALL_SIGNAL=replay\nWINDFALL_TRACE_FILE=t.csv\n"
        b"WINDFALL_NATS_URL=nats://localhost:4222\nWINDFALL_TLS_CERT=c\nWINDFALL_HEALTH_PORT=0",
    ]


def _loaded(data: bytes) -> object:
    lines = text(data).replace("\x00", "").split("\n")
    environ = {name: value for name, equals, value in (line.partition("=") for line in lines) if equals and name}
    refused: Mistake | None = None
    for kind in (WatcherSettings, ProvisionerSettings, ProfilerSettings):
        try:
            load(kind, environ)
        except Mistake as mistake:
            refused = mistake
    if refused is not None:
        raise refused
    return None


def _waves() -> Sequence[bytes]:
    def wave(octets: int, channels: int, pcm: bytes) -> bytes:
        rate, block = 16000, octets * channels
        form = b"fmt " + (16).to_bytes(4, "little") + b"\x01\x00" + channels.to_bytes(2, "little")
        form += rate.to_bytes(4, "little") + (rate * block).to_bytes(4, "little") + block.to_bytes(2, "little")
        form += (8 * octets).to_bytes(2, "little")
        data = b"data" + len(pcm).to_bytes(4, "little") + pcm
        return b"RIFF" + (4 + len(form) + len(data)).to_bytes(4, "little") + b"WAVE" + form + data

    return [wave(2, 1, bytes(64)), wave(3, 2, bytes(60)), wave(1, 1, b"\x80" * 9)]


def _tokenizers() -> Sequence[bytes]:
    alphabet = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({sign: at for at, sign in enumerate(alphabet)}, []))
    tokenizer.decoder = decoders.ByteLevel()
    return [tokenizer.to_str().encode()]


_tokens = Place(".bin")


def _token_files() -> Sequence[bytes]:
    """What is said of them, and they."""
    about = {"dtype": "uint16", "vocabulary": 300, "tokens": 20, "tokenizer_sha256": "ab" * 32}
    return [json.dumps(about).encode() + _APART + b"".join(bytes((at, 0)) for at in range(20))]


def _counted(data: bytes) -> object:
    about, _, tokens = data.partition(_APART)
    path = _tokens.holding(tokens)
    path.with_suffix(".json").write_bytes(about)
    return read_token_file(path, 300, "ab" * 32)


TARGETS: Final = (
    of_file("contexts", _contexts, contexts.read, (Mistake,), ".toml"),
    of_file("site policy TOML", _policies, read_policy, (Mistake,), ".toml"),
    of_file("site policy JSON", _policies_json, read_policy, (Mistake,), ".json"),
    of_file("profile", _profiles, read_profile, (Mistake,), ".json"),
    of_file("model that was exported", _models, read_model, (Mistake,), ".safetensors"),
    of_file("sites and federations", _manifests, lambda path: read_declared([str(path)]), (Mistake,), ".yaml"),
    Target("rendered manifests", _manifests, _documents, (Mistake,)),
    Target("placement question", _questions, _asked, (Mistake,)),
    Target("settings", _settings, _loaded, (Mistake,)),
    of_file("speech", _waves, partial(read_wave, sample_rate=16000), (DataError,), ".wav"),
    Target("token file", _token_files, _counted, (DataError,)),
    of_file("tokenizer", _tokenizers, read_tokenizer, (DataError,), ".json"),
)
