"""What one of several processes does: PyTorch's own engine over its share of each step."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from windfall.lowcomm.layout import Layout, TensorSpec
from windfall.site_trainer.checkpoint import about
from windfall.site_trainer.engine import Precision
from windfall.site_trainer.passes import is_out_of_memory
from windfall.site_trainer.peers import Peers
from windfall.site_trainer.ranks.flats import leave, mapped
from windfall.site_trainer.room import Room
from windfall.site_trainer.torch_engine import TorchEngine
from windfall.tasks.registry import load_task


class Rank:
    """One process of a group that has formed."""

    def __init__(self) -> None:
        self._number, self._size = dist.get_rank(), dist.get_world_size()
        self._samples = 0
        self._does: dict[str, Callable[..., Mapping[str, object]]] = {
            "begin": self._begin,
            "load": self._load,
            "step": self._step,
            "tune": self._tune,
            "take": self._take,
            "snapshot": self._snapshot,
            "restore": self._restore,
        }

    @classmethod
    def joined(cls) -> "Rank":
        """Meet the others, as torchrun's variables name them: over NCCL (RCCL on AMD) between GPUs, gloo else."""
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, init_method="env://")
        return cls()

    def do(self, word: dict[str, Any]) -> Mapping[str, object]:
        """Obey one word, and say what came of it: what the trainer can make something of is an answer. Anything else
        ends this process, and the group forms anew."""
        self._samples = 0
        try:
            return self._does[word.pop("do")](**word)
        except ValueError as error:
            return {"error": "value", "text": str(error)}
        except OSError as error:
            return {"error": "disk", "text": str(error)}
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                return {"error": "memory", "text": str(error).partition("\n")[0], "samples": self._samples}
            raise

    def _begin(
        self,
        task: str,
        task_settings: str,
        tensors: list[tuple[str, list[int], str, bool]],
        tied: list[tuple[str, str]],
        base: str,
        local: str,
        sharding: str,
        accumulation: int,
        room: int,
        data_dir: str,
        **settings: Any,
    ) -> Mapping[str, object]:
        specs = tuple(TensorSpec(name, tuple(shape), dtype, exact) for name, shape, dtype, exact in tensors)
        layout = Layout(specs, tuple((name, owner) for name, owner in tied))
        peers = Peers(self._number, self._size, "fsdp" if sharding == "fsdp" else "ddp")
        self._accumulation = accumulation
        self._engine = TorchEngine(
            load_task(task, task_settings),
            layout,
            Path(data_dir),
            accumulation=accumulation,
            peers=peers,
            **settings,
        )
        self._engine.limit(Room(room))
        self._base, self._local = mapped(Path(base), layout.elements), mapped(Path(local), layout.elements)
        return {}

    def _load(self, tokens: int, sites: int) -> Mapping[str, object]:
        self._engine.load(self._base, tokens, sites)
        return {}

    def _step(self, samples: int) -> Mapping[str, object]:
        self._samples = max(self._engine.room.cut(samples, self._accumulation))
        report = self._engine.step(samples)
        return {"report": asdict(report), "progress": asdict(self._engine.progress)}

    def _tune(self, accumulation: int, precision: Precision) -> Mapping[str, object]:
        self._accumulation = accumulation
        self._engine.tune(accumulation, precision)
        return {}

    def _take(self) -> Mapping[str, object]:
        vector = self._engine.local()
        if self._number == 0:
            self._local.copy_(vector)
        return {}

    def _snapshot(self, path: str) -> Mapping[str, object]:
        taken = self._engine.checkpoint()
        said = leave(Path(path), taken.tensors) if self._number == 0 else []
        return {"about": json.loads(about(taken)), "tensors": said}

    def _restore(self, path: str, base_digest: str) -> Mapping[str, object]:
        restored = self._engine.restore(Path(path), base_digest)
        return {"restored": restored, "progress": asdict(self._engine.progress)}
