"""Nothing secret stands in a log: what looks like a key, a password or a bearer's token is blotted out, whoever wrote
it there. Code does not log secrets; this is for a library's error that quotes a URL or a header.
"""

import re
from typing import Final

BLOT: Final = "[secret]"

_SECRETS: Final = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    # A seed of an nkey: S, its kind, and 56 characters of base 32.
    re.compile(r"\bS[ACNOUX][A-Z2-7]{56}\b"),
    re.compile(r"(?<=://)[^\s/@:'\"]*:[^\s/@'\"]+(?=@)"),
    re.compile(r"(?i)\b(?:bearer|basic)\s+[\w.~+/-]{16,}=*"),
    re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"),
    re.compile(r"(?i)(?<=[?&])(?:(?:access_|auth_?|api_?)?(?:token|key)|password|secret)=[^&\s'\"]+"),
)
"""Private keys, seeds, userinfo of URLs, headers of authorization, JSON web tokens, and parameters of queries."""


def scrubbed(text: str) -> str:
    """The text without what is secret."""
    for secret in _SECRETS:
        text = secret.sub(BLOT, text)
    return text
