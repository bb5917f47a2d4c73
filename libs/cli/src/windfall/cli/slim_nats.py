"""nats-py without the HTTP client that it loads for WebSockets, which no command here speaks.

Import it before ``nats``: loading that client is a third of what it takes a command to begin.
"""

import sys

if "nats" not in sys.modules and "aiohttp" not in sys.modules:
    # What stands here as none cannot be imported; nats-py does without it then.
    sys.modules["aiohttp"] = None  # type: ignore[assignment]
    try:
        import nats.aio.transport  # noqa: F401
    finally:
        del sys.modules["aiohttp"]
