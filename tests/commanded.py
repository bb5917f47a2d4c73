"""The ``windfall`` command, run as a person runs it who sits at no terminal."""

import asyncio
import os
import sys


async def begun(*arguments: str, url: str = "", **environ: str) -> asyncio.subprocess.Process:
    """Start it, for who reads what it prints while it runs.

    Args:
        url: of the server; empty where none is asked.
        environ: further variables.
    """
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "windfall.cli", *arguments),
        env={**os.environ, "WINDFALL_NATS_URL": url, **environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ran(*arguments: str, url: str = "", **environ: str) -> tuple[int, str, str]:
    """Run it to its end: its exit code, what it prints, and what it complains of.

    Args:
        url: of the server; empty where none is asked.
        environ: further variables.
    """
    process = await begun(*arguments, url=url, **environ)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()
