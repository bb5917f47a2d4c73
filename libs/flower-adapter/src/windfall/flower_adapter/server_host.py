"""Runs a stock ServerApp to its end in a thread of its own, and keeps the model that it comes to."""

import asyncio
import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context, RecordDict
from flwr.serverapp import ServerApp
from safetensors.torch import save_file

from windfall.flower_adapter import randomness, shim
from windfall.flower_adapter.app_folder import AppFolder, RunConfig
from windfall.flower_adapter.arrays import from_record
from windfall.flower_adapter.content import pack
from windfall.flower_adapter.grid import WindfallGrid
from windfall.flower_adapter.office import Office, RunStopped
from windfall.servicekit.errors import ExitCode, Mistake

log = logging.getLogger(__name__)


class ServerHost:
    """One run of one ServerApp; after a restart the same run, from its beginning (see ``grid``).

    Args:
        model_file: where the final model is laid down, as safetensors.
    """

    def __init__(
        self,
        office: Office,
        app: ServerApp,
        folder: AppFolder,
        config: RunConfig,
        max_body_bytes: int,
        model_file: Path,
    ) -> None:
        self._office = office
        self._app = app
        self._config = config
        self._model_file = model_file
        self._loop = asyncio.get_running_loop()
        run = shim.described_run(office.state.run_id, folder.name, folder.version)
        self.grid = WindfallGrid(office, self._loop, run, max_body_bytes)
        self._result: ArrayRecord | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()

    async def run(self) -> None:
        """Run the app, then say that the run is over.

        Raises:
            Mistake: the app broke. What was answered is kept, and counts when it is started again.
        """
        if self._office.state.finished:
            await self._office.finish("")
            return
        # Not the event loop's own pool: nobody can wait for the end of somebody else's endless loop.
        threading.Thread(target=self._live, name="server-app", daemon=True).start()
        try:
            await self._ended
        except RunStopped as stopped:
            log.info("the ServerApp ends: %s", stopped)
        model = self._model()
        digest = ""
        if any(record.keys() for record in model.array_records.values()):
            digest = await asyncio.to_thread(self._lay_down, model)
        await self._office.finish(digest)

    def _live(self) -> None:
        state = self._office.state
        shim.take_identity(state.run_id, shim.COORDINATOR_NODE)
        context = Context(state.run_id, shim.COORDINATOR_NODE, {}, RecordDict(), dict(self._config))
        try:
            kept = asyncio.run_coroutine_threadsafe(self._start(randomness.captured()), self._loop).result()
            randomness.restore(kept)
            with shim.results_watched(self._seen):
                self._app(self.grid, context)
        except (RunStopped, Mistake) as error:
            self._tell(error)
        except Exception as error:
            log.exception("the ServerApp broke")
            self._tell(
                Mistake(
                    f"the ServerApp broke: {error!r}",
                    "Mend the app and start again; what was answered so far is kept",
                    ExitCode.FAILED,
                )
            )
        else:
            self._tell(None)

    async def _start(self, now: randomness.Randomness) -> randomness.Randomness:
        return self._office.records.start(now)

    def _seen(self, result: shim.Result) -> None:
        """A strategy has come to its end: its arrays go back to the types that they began with, here as well."""
        (name, *_) = self.grid.types.names or ("arrays",)
        self._result = result.arrays = self.grid.types.of_record(name, result.arrays)

    def _tell(self, error: Exception | None) -> None:
        def tell() -> None:
            if not self._ended.done():
                self._ended.set_result(None) if error is None else self._ended.set_exception(error)

        with suppress(RuntimeError):  # the event loop has ended before the app: nobody is left to hear it
            self._loop.call_soon_threadsafe(tell)

    def _model(self) -> RecordDict:
        if self._result is None:
            return self.grid.last
        (name, *_) = self.grid.types.names or ("arrays",)
        return RecordDict({name: self._result})

    def _lay_down(self, model: RecordDict) -> str:
        """Write the model where a person finds it; its digest is that of the body in which it would travel."""
        records = model.array_records
        alone = len(records) == 1
        tensors: dict[str, Any] = {}
        for name, record in records.items():
            try:
                read = from_record(record)
            except ValueError as error:
                log.warning("the model is not written: %s", error)
                return ""
            tensors |= {key if alone else f"{name}/{key}": tensor for key, tensor in read.items()}
        self._model_file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._model_file.with_suffix(".draft")
        save_file(tensors, draft)
        draft.replace(self._model_file)
        return self._office.blobs.named(pack(RecordDict(dict(records))).pieces)
