"""A real Prometheus, where one is installed."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from windfall.servicekit.natsserver import free_port


@asynccontextmanager
async def prometheus(folder: Path, job: Mapping[str, Any], rules: Sequence[Path] = ()) -> AsyncIterator[str]:
    """Its address, until the block ends.

    Args:
        job: what it scrapes every second, as ``scrape_configs`` has it.
    """
    every_second = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config = folder / "prometheus.yml"
    # YAML has JSON in it.
    config.write_text(
        json.dumps({"global": every_second, "rule_files": [str(path) for path in rules], "scrape_configs": [job]})
    )
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()
