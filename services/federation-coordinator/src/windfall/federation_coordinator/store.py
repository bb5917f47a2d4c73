"""The coordinator's disk: base models, the outer optimizer's state, and contributions on their way into them.

Contributions lie on disk from the moment they arrive and merge in the order of site and attempt, so that the digest
does not depend on who came first, nor on a crash in between.

A base is a valid safetensors file (8-byte little-endian header length, JSON header, raw little-endian tensors end to
end), written to a temporary name, fsynced and renamed, so that a name always stands for whole contents.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from shutil import copyfileobj
from threading import Lock
from typing import TYPE_CHECKING, Final

import numpy as np

from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.arithmetic import load_torch
from windfall.federation_coordinator.checks import Seen, check_content
from windfall.federation_coordinator.damage import checksum, damaged_of
from windfall.federation_coordinator.durable import RESTORE, Whole, clear_drafts, explained, sync_folder
from windfall.federation_coordinator.federation import Contribution
from windfall.federation_coordinator.history import History
from windfall.federation_coordinator.incoming import Incoming
from windfall.federation_coordinator.on_disk import raw
from windfall.federation_coordinator.outer_step import Base, Step, Stretch, size_of, take_step
from windfall.lowcomm.later import torch
from windfall.lowcomm.layout import FLOAT32_BYTES, Layout, restore
from windfall.lowcomm.rotation import Rotation
from windfall.lowcomm.rule import Rule
from windfall.lowcomm.staleness import MOST_ROUNDS_LATE
from windfall.servicekit.crashpoint import reach
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.telemetry import span

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK: Final = 512 * 1024
_CONTRIBUTION: Final = "contribution"
_INCOMING: Final = "incoming"
_PRUNED: Final = ("base", "outer", _INCOMING)


class ModelStore:
    """See the module.

    Args:
        folder: this coordinator's own.
        layout: of the model.
        rule: how contributions are written and merged.
        fragments: of the model, that rounds synchronise in turn.
        term: fencing token of whoever leads; what arrives is written under it, so that a leader that slept through its
            lease cannot write into what the next one takes in.

    Raises:
        ValueError: the model has less fragments.
        Mistake: the folder cannot be made. Whatever writes raises it when the disk is full.
    """

    def __init__(self, folder: Path, layout: Layout, rule: Rule, term: int = 0, fragments: int = 1) -> None:
        self._folder = folder
        self._term = term
        self._layout = layout
        self._header = _header(layout)
        # Decoding takes memory: one contribution is looked at at a time.
        self._looking = Lock()
        self._looked_at: set[Path] = set()
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.parent)
        self._go_by(rule, fragments)

    def _go_by(self, rule: Rule, fragments: int) -> None:
        self.rule = rule
        self.fragments = Rotation(self._layout.split, fragments)
        self._sizes = self.fragments.sizes(rule.outer)
        followed = self.fragments.followed(rule)
        self._log = History(self._folder, self.fragments, self._nbytes_followed) if followed else None

    def adopt(self, rule: Rule, fragments: int) -> None:
        """Go by another rule, before anything was trained: an empty outer state of it lies beside round 0.

        Raises:
            ValueError: the model has less fragments.
        """
        self._go_by(rule, fragments)
        with explained(self._folder):
            self._lay_states()

    @property
    def final(self) -> Path:
        """Where the last model of a finished federation goes."""
        return self._folder / "model.safetensors"

    def base(self, round_number: int) -> Base:
        """The model from which a round starts."""
        return Base(self._base_path(round_number), len(self._header), self._layout.nbytes)

    def states(self, round_number: int) -> list[Path]:
        """The outer optimizer's state that belongs to a base: raw little-endian fp32, a file per slot."""
        return [self._folder / f"outer-{round_number:06d}-{slot}.f32" for slot in range(len(self._sizes))]

    def best(self) -> Base:
        """The model that did best on held-out data, where one was kept."""
        return Base(self._best, len(self._header), self._layout.nbytes)

    def initialise(self, flat: Tensor) -> str:
        """Lay down the model of round 0 and an empty outer state; gives the model's digest. Twice is harmless."""
        self._lay_states()
        with Whole(self._base_path(0)) as file:
            file.write(self._header)
            file.write(raw(flat))
        return hashlib.sha256(raw(flat)).hexdigest()

    def _lay_states(self) -> None:
        for path, size in zip(self.states(0), self._sizes, strict=True):
            with Whole(path) as file:
                file.truncate(size * FLOAT32_BYTES)

    def check(self, round_number: int, digest: str) -> None:
        """Hold the base on disk against the digest in the journal, and see that the outer state lies beside it.

        Raises:
            Mistake: one of them is missing or damaged, or belongs to other settings.
        """
        found = self.digest(round_number)
        if found != digest:
            is_ = "missing" if found is None else "damaged or another task's"
            raise Mistake(f"the model {self._base_path(round_number)} is {is_}", RESTORE, ExitCode.RESOURCE)
        for path, size in zip(self.states(round_number), self._sizes, strict=True):
            if not path.exists() or path.stat().st_size != size * FLOAT32_BYTES:
                raise Mistake(
                    f"the outer optimizer's state {path} is missing or damaged",
                    f"Set WINDFALL_OUTER to what it was, if it was changed. {RESTORE}",
                    ExitCode.RESOURCE,
                )

    def sums(self, round_number: int) -> tuple[str, ...]:
        """Checksums of the outer state beside a base; an empty one for a file that is missing."""
        return tuple(checksum(path) for path in self.states(round_number))

    def damaged(self, contributions: Sequence[Contribution]) -> tuple[Contribution, ...]:
        """Those that are not on disk as they were accepted."""
        return damaged_of({self.path(one): one for one in contributions})

    def unmergeable(self, contributions: Sequence[Contribution]) -> tuple[Contribution, ...]:
        """Those that are not on disk as they were accepted, as far as it pays to look before a merge.

        Short ones are always hashed. Those of dense codecs, which would cost more to hash than to merge, were hashed
        when this process took them in: of them the length is looked at, and the hash when another process did.
        """
        hashed = {
            one.key
            for one in contributions
            if self.rule.elementwise and self.path(one) in self._looked_at and _length(self.path(one)) == one.bytes_up
        }
        return self.damaged([one for one in contributions if one.key not in hashed])

    def copy(self, round_number: int, to: int) -> None:
        """Lay a checkpoint down once more, as that of a later round."""
        sources = [*self.states(round_number), self._base_path(round_number)]
        for source, target in zip(sources, [*self.states(to), self._base_path(to)], strict=True):
            with explained(target), Whole(target) as file, source.open("rb") as old:
                copyfileobj(old, file, _BLOCK)

    def clear(self) -> None:
        """Forget what a crash left half-written."""
        with explained(self._folder):
            clear_drafts(self._folder)

    def digest(self, round_number: int) -> str | None:
        """SHA-256 of a base's tensors as they lie on disk; none when there is no such file."""
        return self._digest(self._base_path(round_number))

    def load(self, round_number: int) -> Tensor:
        """A base as a flat fp32 vector ``[elements]``: it takes the model's size in memory.

        Raises:
            FileNotFoundError: it has been pruned.
        """
        load_torch()
        base = self.base(round_number)
        flat = np.fromfile(base.path, dtype="<f4", count=self._layout.elements, offset=base.data_start)
        return torch.from_numpy(flat.astype(np.float32, copy=False))

    def incoming(self, round_number: int, site: str, attempt: int, expected_bytes: int) -> Incoming:
        """Where the bytes of a contribution go that is not accepted; what arrived before a cut is there already."""
        part = self._part_path(round_number, site, attempt)
        sealed = self.contribution_path(round_number, site, attempt)
        with explained(part):
            if sealed.exists():
                # A crash came between its last byte and its acceptance.
                sealed.replace(part)
            elif not part.exists() and (earlier := self._arrived_earlier(part)) is not None:
                with Whole(part) as file, earlier.open("rb") as source:
                    copyfileobj(source, file, _BLOCK)
        return Incoming(part, expected_bytes)

    def look(self, round_number: int, site: str, attempt: int, manifest: pb.Manifest) -> Seen:
        """Read a sealed contribution to its end.

        Raises:
            Refusal: it is not what its manifest says, or not what a site says under this rule.
        """
        path = self.contribution_path(round_number, site, attempt)
        load_torch()
        with self._looking, explained(path):
            seen = check_content(path, self.rule, self.fragments.split(round_number), manifest)
            self._looked_at.add(path)
        return seen

    def received(self, round_number: int, site: str, attempt: int) -> int:
        """Bytes that have arrived of a contribution that is not accepted: where its site goes on."""
        sealed = self.contribution_path(round_number, site, attempt)
        part = self._part_path(round_number, site, attempt)
        path = next((path for path in (sealed, part) if path.exists()), None) or self._arrived_earlier(part)
        return 0 if path is None else path.stat().st_size

    def path(self, contribution: Contribution) -> Path:
        """Where an accepted contribution lies."""
        return self.contribution_path(contribution.base_round, contribution.site, contribution.attempt)

    def contribution_path(self, round_number: int, site: str, attempt: int) -> Path:
        """Where a contribution from the base of a round lies once all its bytes are there."""
        return self._folder / f"{_CONTRIBUTION}-{round_number:06d}-{site}-{attempt}"

    def merge(self, round_number: int, contributions: Sequence[Contribution]) -> str:
        """Take the outer step from this round's base; gives the digest of the next round's.

        Doing it again gives the same bits, whatever a crash left of the first time.

        Raises:
            Mistake: the disk is full, or something that this round stands on is not there any more.
        """
        load_torch()
        with explained(self._folder):
            ordered = sorted(contributions, key=lambda one: one.key)
            messages = [self.path(one) for one in ordered]
            place = Step(
                self.base(round_number),
                self.states(round_number),
                self._base_path(round_number + 1),
                self.states(round_number + 1),
                self._header,
                round_number,
            )
            # Merging and stepping go through the model together, piece by piece: one span.
            with span("outer step"):
                digest = take_step(place, self.rule, self.fragments, ordered, messages)
            reach("merge.stepped")
            if self._log is not None:
                base = self.digest(round_number) or ""
                self._log.add(round_number, base, digest, ordered, messages)
            return digest

    def log(self, held: str, wanted: str, own: str) -> list[Stretch] | None:
        """The outer log from one base to another, without the message of that SHA-256: what it is made of, end to end.
        None when there is no such log or the model itself is shorter."""
        if self._log is None:
            return None
        with explained(self._folder):
            found = self._log.between(held, wanted, own)
        return found if found is not None and size_of(found) < self._nbytes_followed else None

    def repeat(self, round_number: int) -> None:
        """Let the next round start from this round's base: what was merged is not kept. Again is harmless."""
        self.copy(round_number, round_number + 1)
        if self._log is not None:
            with explained(self._folder):
                self._log.drop(round_number)

    def keep_best(self, round_number: int) -> bool:
        """Keep the model from which a round starts, with the outer optimizer's state, until a better one is kept.
        False when it has been pruned."""
        with explained(self._folder):
            try:
                for state, kept in zip(self.states(round_number), self._best_states, strict=True):
                    self._copy(state, kept)
                self._copy(self._base_path(round_number), self._best)
            except FileNotFoundError:
                return False
        return True

    def adopt_best(self, round_number: int, digest: str) -> bool:
        """Let a round to come start from the best model. False when that is not whole any more."""
        with explained(self._folder):
            if self._digest(self._best) != digest or not all(path.exists() for path in self._best_states):
                return False
            for kept, state in zip(self._best_states, self.states(round_number), strict=True):
                self._copy(kept, state)
            self._copy(self._best, self._base_path(round_number))
        return True

    def prune(self, round_number: int, merged: Iterable[tuple[str, int, int]]) -> None:
        """Forget what no crash can need any more: everything before this round but the previous checkpoint, the outer
        log as far back as it is shorter than the model, and contributions.

        Args:
            merged: sites, attempts and base rounds of contributions that lead to no checkpoint that is kept.
        """
        for site, attempt, base_round in merged:
            self._forget(self.contribution_path(base_round, site, attempt))
        previous = {self._base_path(round_number - 1), *self.states(round_number - 1)}
        for path in self._folder.iterdir():
            number, kind = _round_of(path.name), path.name.split("-")[0]
            # What is on its way may still count when it is late.
            oldest = round_number - MOST_ROUNDS_LATE * self.fragments.count if kind == _INCOMING else round_number
            if number is not None and number < oldest and kind in _PRUNED and path not in previous:
                self._forget(path)
        if self._log is not None:
            self._log.prune()

    def sweep(self, round_number: int, needed: Collection[tuple[str, int, int]]) -> None:
        """Before anything comes in: forget the contributions to earlier rounds that nobody counts.

        Args:
            needed: sites, attempts and base rounds of those that wait for a merge, or made the newest base.
        """
        kept = {self.contribution_path(base_round, site, attempt) for site, attempt, base_round in needed}
        for path in self._folder.glob(f"{_CONTRIBUTION}-*"):
            number = _round_of(path.name)
            if number is not None and number < round_number and path not in kept:
                self._forget(path)
        self.prune(round_number, ())

    def _forget(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._looked_at.discard(path)
        reach("prune.removed")

    def export(self, round_number: int, target: Path) -> None:
        """Write a base where a person wants it, in its tensors' own types, whole or not at all.

        Where all of them are float32 it is the base as it lies, so that the digest of a round is that of the file.
        """
        plain = not self._layout.tied and all(spec.dtype == "float32" for spec in self._layout.tensors)
        with explained(target), Whole(target) as file:
            if plain:
                with self._base_path(round_number).open("rb") as source:
                    copyfileobj(source, file, _BLOCK)
            else:
                state = restore(self.load(round_number), self._layout)
                from safetensors.torch import save

                # The format knows no sharing: a tied tensor is written under each of its names.
                file.write(save(state | {name: state[name].clone() for name, _ in self._layout.tied}))

    @property
    def _nbytes_followed(self) -> int:
        return self._layout.nbytes + sum(self._sizes) * FLOAT32_BYTES

    def _digest(self, path: Path) -> str | None:
        sha = hashlib.sha256()
        try:
            with path.open("rb") as file:
                file.seek(len(self._header))
                while block := file.read(_BLOCK):
                    sha.update(block)
        except FileNotFoundError:
            return None
        return sha.hexdigest()

    def _copy(self, source: Path, target: Path) -> None:
        """Another name for the same contents, in the place of what had that name: no file is ever written to twice."""
        draft = target.with_name(f"{target.name}.tmp")
        draft.unlink(missing_ok=True)
        draft.hardlink_to(source)
        draft.replace(target)
        sync_folder(self._folder)

    @property
    def _best(self) -> Path:
        return self._folder / "best.safetensors"

    @property
    def _best_states(self) -> list[Path]:
        return [self._folder / f"best.{slot}.f32" for slot in range(len(self._sizes))]

    def _base_path(self, round_number: int) -> Path:
        return self._folder / f"base-{round_number:06d}.safetensors"

    def _part_path(self, round_number: int, site: str, attempt: int) -> Path:
        under = f".{self._term}" if self._term else ""
        return self._folder / f"{_INCOMING}-{round_number:06d}-{site}-{attempt}{under}"

    def _arrived_earlier(self, part: Path) -> Path | None:
        """What another leader took in of a contribution; none when nobody did, or there is but one coordinator."""
        if not self._term:
            return None
        stem = part.name.removesuffix(f".{self._term}")
        found = [self._folder / stem, *self._folder.glob(f"{stem}.*")]
        return max(
            (path for path in found if path.exists() and path.suffix != ".tmp" and path != part),
            key=lambda path: path.stat().st_size,
            default=None,
        )


def _header(layout: Layout) -> bytes:
    """The safetensors header of a layout, padded so that the tensors begin at a multiple of 8."""
    entries = {
        spec.name: {
            "dtype": "F32",
            "shape": list(spec.shape),
            "data_offsets": [offset * FLOAT32_BYTES, (offset + spec.elements) * FLOAT32_BYTES],
        }
        for spec, offset in zip(layout.tensors, layout.offsets, strict=True)
    }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def _round_of(name: str) -> int | None:
    parts = name.split("-")
    digits = parts[1].split(".")[0] if len(parts) > 1 else ""
    return int(digits) if digits.isdigit() else None
