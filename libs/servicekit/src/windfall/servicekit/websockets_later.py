"""nats-py without the HTTP client that it imports for WebSockets, which hardly anybody's NATS speaks.

Where that client is installed, beside the ``windfall`` command, it is a seventh of a service's start. It is loaded when
nats-py first looks at it. Import this module before nats-py.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Final

_CLIENT: Final = "aiohttp"


class _Later:
    """Stands for the module in nats-py's transport."""

    def __getattr__(self, name: str) -> object:
        return getattr(import_module(_CLIENT), name)


if _CLIENT not in sys.modules and find_spec(_CLIENT) is not None:
    # The import system's way to say that there is none.
    sys.modules[_CLIENT] = None  # type: ignore[assignment]
    try:
        transport = import_module("nats.aio.transport")
    finally:
        del sys.modules[_CLIENT]
    vars(transport)[_CLIENT] = _Later()
