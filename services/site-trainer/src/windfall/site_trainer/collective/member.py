"""One member at work: from where the group agrees to start, round after round, to the final model.

What is lost with a member is what it did since the last boundary. Those who stay keep even that: when the group breaks
they write down their local steps, and go on with them in the next group if it stands on the same boundary.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import Final, TypeVar

import torch
from pydantic import BaseModel, ValidationError

from windfall.lowcomm.layout import flatten, layout_of_model
from windfall.lowcomm.rule import Rule
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.site_trainer.collective.boundary import (
    MOST_WORDS,
    Held,
    Passed,
    agree,
    check_alike,
    contributions,
    local_steps,
    step,
)
from windfall.site_trainer.collective.exchange import Group, PeerLost, vendor
from windfall.site_trainer.collective.folder import Folder
from windfall.site_trainer.collective.holding import begin
from windfall.site_trainer.collective.settings import CollectiveSettings
from windfall.site_trainer.collective.stop import Stop, Stopped
from windfall.site_trainer.torch_engine import TorchEngine
from windfall.tasks.registry import load_task

log = logging.getLogger(__name__)

SILENT_ROUNDS: Final = 10
"""Rounds in a row in which no member had a finite step, after which the model has diverged."""

W = TypeVar("W", bound=BaseModel)


class Member:
    """A member of one group, from its rendezvous to the end of the run or of the group.

    Args:
        say: takes a line of JSON per boundary.

    Raises:
        Mistake: settings, data or a file on disk that a person must mend.
    """

    def __init__(self, settings: CollectiveSettings, stop: Stop, say: Callable[[str], object]) -> None:
        self._settings, self._stop, self._say = settings, stop, say
        try:
            self._rule = Rule.parse(settings.codec, settings.outer, settings.clip, settings.merge)
            task = load_task(settings.task, settings.task_settings)
            model = task.model(settings.seed)
            self._layout = layout_of_model(model)
            self._engine = TorchEngine(
                task,
                self._layout,
                settings.data_dir,
                _data_seed(settings.seed, settings.site),
                settings.torch_threads,
                settings.device,
                settings.precision,
                settings.accumulation,
            )
        except ValueError as error:
            raise Mistake(f"cannot train: {error}", "Mend the settings or the site's data") from error
        self._owner = {
            "--task": f"{settings.task} {settings.task_settings}",
            "model": hashlib.sha256(repr((self._layout.tensors, self._layout.tied)).encode()).hexdigest()[:12],
            **dict(zip(("--codec", "--outer", "--clip", "--merge"), map(str, self._rule.settings), strict=True)),
        }
        self._split = self._layout.split
        self._folder = Folder(settings.state_dir, self._owner)
        kept = self._folder.load()
        self._holding = kept or begin(self._rule, flatten(model.state_dict(), self._layout), self._split)
        self._on_disk = kept is not None
        self._steps, self._tried, self._skipped, self._skipped_in_all, self._silent = settings.steps, 0, 0, 0, 0
        self._speed = 0.0

    def run(self) -> None:
        """Train to the end, and write the final model.

        Raises:
            Stopped: we were asked to end; local steps are on disk.
            PeerLost: the group broke; local steps are on disk.
            Mistake: members cannot go on together.
        """
        wait = self._stop.wait_for
        self._group: Group = wait(Group.form, self._settings.backend, self._settings.timeout)
        self._meet()
        try:
            while not self._over():
                self._train()
                self._pass_boundary()
        except (PeerLost, Stopped):
            self._keep()
            raise
        self._export()

    # --- the group forms ----------------------------------------------------------------------------------------------

    def _meet(self) -> None:
        """Agree with the others on where to start, and have it."""
        settings, holding, group = self._settings, self._holding, self._group
        terms = {
            **self._owner,
            "--rounds": str(settings.rounds),
            "--tokens": str(settings.tokens),
            "--match-speed": str(settings.match_speed),
            "--backend": settings.backend if settings.backend == "gloo" else vendor(),
        }
        word = Held(site=settings.site, round=holding.round, tokens=holding.tokens, digest=holding.digest, terms=terms)
        held = _read(Held, self._stop.wait_for(group.greet, _bytes(word), MOST_WORDS))
        self._sites = [one.site for one in held]
        try:
            start = agree(held)
        except ValueError as error:
            raise Mistake(f"these members cannot train together: {error}", "Then start again") from error
        for source, target in start.transfers:
            if source == group.rank:
                self._stop.wait_for(group.send, [holding.base, *holding.outer], target)
            elif target == group.rank:
                self._follow(start.round, start.tokens, start.digest, source)
        self._load()
        if self._engine.restore(self._folder.checkpoint, self._holding.model_digest):
            self._tried = self._engine.progress.steps
        log.info(
            "%s is rank %d of %s, at round %d with %d local steps",
            settings.site,
            group.rank,
            ", ".join(self._sites),
            self._holding.round,
            self._tried,
        )

    def _follow(self, number: int, tokens: int, digest: str, source: int) -> None:
        """Take what one who is ahead holds. What our codec owed belongs to a model that has moved on."""
        into = begin(self._rule, torch.empty_like(self._holding.base), self._split)
        self._stop.wait_for(self._group.receive, [into.base, *into.outer], source)
        self._holding, self._on_disk = replace(into, round=number, tokens=tokens), False
        if self._holding.digest != digest:
            raise Mistake(
                f"what {self._sites[source]} sent of round {number} is not what it holds",
                "Look at the link; start again",
                ExitCode.FAILED,
            )

    def _load(self) -> None:
        """A round starts from the model of the boundary."""
        self._engine.load(self._holding.base, tokens=self._holding.tokens, sites=self._group.size)
        self._tried = self._skipped = 0

    # --- a round ------------------------------------------------------------------------------------------------------

    def _over(self) -> bool:
        settings, holding = self._settings, self._holding
        return 0 < settings.rounds <= holding.round or 0 < settings.tokens <= holding.tokens

    def _train(self) -> None:
        began, first = monotonic(), self._tried
        while self._tried < self._steps:
            self._stop.look()
            report = self._engine.step(self._settings.micro_batch)
            self._tried += 1
            self._skipped += report.skipped is not None
        if self._tried > first:
            self._speed = (self._tried - first) / (monotonic() - began)

    def _pass_boundary(self) -> None:
        """Say what was learnt, hear the others, take the outer step, and keep it once all have the same bits."""
        stop, group, holding, progress = self._stop, self._group, self._holding, self._engine.progress
        feedback, message = self._spoken()
        began = monotonic()
        messages = stop.wait_for(group.all_gather, message, self._rule.most_bytes(self._split))
        waited = monotonic() - began
        try:
            said, tokens = contributions(self._rule, self._split, holding.round, self._sites, messages)
            ahead = replace(step(self._rule, self._split, holding, said, tokens), feedback=feedback)
            word = Passed(site=self._settings.site, digest=ahead.digest, steps_per_s=self._speed)
            passed = _read(Passed, stop.wait_for(group.all_gather, _bytes(word), MOST_WORDS))
            check_alike(ahead.round, passed)
        except ValueError as error:
            raise Mistake(f"members went apart: {error}", "Look at that member's machine", ExitCode.FAILED) from error

        self._silent = 0 if said else self._silent + 1
        self._skipped_in_all += self._skipped
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "site": self._settings.site,
            "round": ahead.round,
            "members": group.size,
            "said": len(said),
            "steps": progress.steps,
            "skipped": self._skipped,
            "skipped_in_all": self._skipped_in_all,
            "loss_nats": round(progress.loss_nats, 6) if progress.steps else None,
            "tokens": progress.tokens,
            "tokens_of_all": ahead.tokens,
            "steps_per_s": round(self._speed, 3),
            "bytes_up": len(message),
            "bytes_down": sum(map(len, messages)) - len(message),
            "wait_s": round(waited, 3),
            "digest": ahead.model_digest,
        }
        self._holding, self._on_disk = ahead, False
        self._load()
        if ahead.round % self._settings.save_every == 0 or self._over():
            self._keep()
        if self._settings.match_speed:
            self._steps = local_steps(self._settings.steps, self._speed, [one.steps_per_s for one in passed])
        self._say(json.dumps(line))
        if self._silent >= SILENT_ROUNDS:
            raise Mistake(
                f"the model diverges: in {SILENT_ROUNDS} rounds no member had a finite step",
                "Lower the task's learning rate, or look for what is broken in the data",
                ExitCode.FAILED,
            )

    def _spoken(self) -> tuple[tuple[torch.Tensor, ...], bytes]:
        """What the codec owes afterwards, and our message: empty where no step was finite."""
        progress, holding = self._engine.progress, self._holding
        if progress.steps == 0:
            return holding.feedback, b""
        try:
            return self._rule.encode(
                holding.feedback,
                self._engine.pseudo_gradient(),
                self._split,
                base=holding.round,
                tokens=progress.tokens,
                steps=progress.steps,
            )
        except ValueError as error:
            log.warning("round %d: nothing to say: %s", holding.round + 1, error)
            return holding.feedback, b""

    def _keep(self) -> None:
        """The boundary, and what was done since."""
        if not self._on_disk:
            self._folder.save(self._holding)
            self._on_disk = True
        self._folder.save_checkpoint(self._engine.save)

    def _export(self) -> None:
        path = self._folder.export(self._holding, self._layout)
        log.info("the model of round %d is in %s, digest %s", self._holding.round, path, self._holding.model_digest)


def _data_seed(seed: int, site: str) -> int:
    """Sites that hold the same text do not read it in the same order."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{site}".encode(), digest_size=4).digest(), "little")


def _bytes(word: BaseModel) -> bytes:
    return word.model_dump_json().encode()


def _read(kind: type[W], words: Sequence[bytes]) -> list[W]:
    try:
        return [kind.model_validate_json(word) for word in words]
    except ValidationError as error:
        raise Mistake(f"a member speaks another version: {error.errors()[0]['msg']}", "Run one version") from error
