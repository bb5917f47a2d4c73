"""A coordinator that starts answers before it has loaded what it merges with."""

import subprocess
import sys


def test_nothing_that_a_coordinator_imports_before_it_answers_loads_torch_or_an_http_client() -> None:
    told = (
        "import sys, windfall.federation_coordinator.__main__;"
        "print(*sorted({'torch', 'aiohttp.client'} & set(sys.modules)));"
        "import aiohttp; from nats.aio import transport;"
        "print(transport.aiohttp.ClientSession is aiohttp.ClientSession)"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    # Whoever asks for it has it.
    assert done.stdout.splitlines() == ["", "True"]
