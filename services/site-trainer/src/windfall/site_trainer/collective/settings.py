"""What a member is told, on the command line or in the environment; the command line counts first."""

import argparse
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from windfall.contracts.message import Name
from windfall.servicekit.errors import Mistake
from windfall.servicekit.settings import PREFIX
from windfall.site_trainer.engine import Device, Precision


def _seconds(given: object) -> object:
    """Durations may be plain seconds, beside ISO 8601 like ``PT10M``."""
    try:
        return float(given) if isinstance(given, str) else given
    except ValueError:
        return given


def _lasting(given: timedelta) -> timedelta:
    if given <= timedelta():
        raise ValueError(f"must be positive, not {given.total_seconds():g} s")
    return given


Duration = Annotated[timedelta, BeforeValidator(_seconds), AfterValidator(_lasting)]


class CollectiveSettings(BaseModel):
    """One member. Task, synchronisation, end and backend are the same at every member; the rest is its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    site: Name
    """Name of the site: who a member is, whatever its rank. torchrun replaces ${local_rank} in it."""
    data_dir: Path
    """The site's own data. Neither it nor its name leaves the site."""
    state_dir: Path
    """Folder of this member alone: the last boundary, a checkpoint and the final model. It is created when missing."""
    task: str = "gpt-neox"
    """What is trained."""
    task_settings: str = "{}"
    """Its settings, a JSON object."""
    seed: int = 0
    """Decides the first model and, with the site's name, the order of the data."""
    codec: str = "topk-ef"
    """What a pseudo-gradient travels as, like 'topk-ef' or 'int4-block'."""
    outer: str = ""
    """Outer optimizer, like 'average' or 'nesterov:lr=0.7,momentum=0.6'; empty takes the one that suits the codec."""
    clip: bool = False
    """Scale contributions down to the median norm."""
    merge: str = "mean"
    """How contributions become one: 'mean', or 'rda' for dense codecs."""
    steps: int = Field(default=50, ge=1)
    """Local steps of a round."""
    match_speed: bool = False
    """A slower member takes fewer steps, in proportion to its measured speed, so that all arrive together."""
    micro_batch: int = Field(default=8, ge=1)
    """Samples per step."""
    accumulation: int = Field(default=1, ge=1)
    """Parts into which a step's samples are cut, to spare memory."""
    device: Device = "auto"
    """Where to train: auto takes a GPU when there is one."""
    precision: Precision = "fp32"
    """Of forward and backward pass; bf16 is PyTorch's autocast."""
    rounds: int = Field(default=0, ge=0)
    """End after so many rounds; 0 for no such end."""
    tokens: int = Field(default=0, ge=0)
    """End at the first boundary with so many tokens of all members together; 0 for no such end."""
    save_every: int = Field(default=1, ge=1)
    """Rounds between writes to disk. When one member falls the others still have every boundary; when all fall at once,
    so many rounds are lost."""
    backend: Literal["gloo", "nccl"] = "gloo"
    """gloo: contributions travel from the CPU, whatever the devices. nccl: by way of the device, NCCL on NVIDIA or RCCL
    on AMD, all members alike."""
    timeout: Duration = timedelta(minutes=30)
    """How long to wait for another member; longer than the slowest one's round. Seconds, or ISO 8601 like PT10M."""
    patience: Duration = timedelta(seconds=10)
    """How long to wait, once the group broke, for the agent to form a new one; then end and cost it a restart."""
    torch_threads: int = Field(default=1, ge=1)
    """Threads of torch on the CPU."""

    @model_validator(mode="after")
    def _ends(self) -> "CollectiveSettings":
        if not self.rounds and not self.tokens:
            raise ValueError("nothing says when to end: give --rounds, --tokens or both")
        return self


def read(arguments: Sequence[str], environ: Mapping[str, str]) -> CollectiveSettings:
    """The settings from the command line and, for what is not on it, from variables like ``WINDFALL_DATA_DIR``.

    Raises:
        Mistake: naming everything that is wrong or missing, in one line.
        SystemExit: ``--help``, or an unknown argument.
    """
    fields = CollectiveSettings.model_fields
    given: dict[str, object] = {name: text for name in fields if (text := environ.get(PREFIX + name.upper()))}
    typed = vars(_parser().parse_args(arguments))
    try:
        return CollectiveSettings.model_validate({**given, **{k: v for k, v in typed.items() if v is not None}})
    except ValidationError as error:
        wrong = "; ".join(_explain(mistake["loc"], mistake["msg"]) for mistake in error.errors())
        raise Mistake(f"settings are wrong: {wrong}", "See --help") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torchrun ... -m windfall.site_trainer.collective",
        usage="%(prog)s --site NAME --data-dir DIR --state-dir DIR (--rounds N | --tokens N) [options]",
        description="Train one model at several static sites without a coordinator. Start one per site with torchrun.",
    )
    for name, field in CollectiveSettings.model_fields.items():
        said = " ".join((field.description or "").split()).replace("%", "%%")
        default = "required" if field.is_required() else f"default {field.default!s}" if field.default != "" else ""
        text = f"{said} [{', '.join(each for each in (PREFIX + name.upper(), default) if each)}]"
        flag = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            parser.add_argument(flag, metavar=name.rpartition("_")[2].upper(), help=text)
    return parser


def _explain(where: tuple[int | str, ...], message: str) -> str:
    said = " ".join(message.removeprefix("Value error, ").split())
    return f"--{str(where[0]).replace('_', '-')}: {said[0].lower()}{said[1:]}" if where else said
