"""Where a rehearsal may let the trainer die: every edge at which work changes hands or is about to."""

from collections.abc import Mapping
from typing import Final

POINTS: Final[Mapping[str, str]] = {
    "join.admitted": "The coordinator counts us in, and nothing here knows of it.",
    "pull.loaded": "The engine holds the base of a round.",
    "step.done": "A step is trained, and not saved.",
    "checkpoint.synced": "A checkpoint is on disk, and has not its name yet.",
    "checkpoint.aside": "The checkpoint before has its second name, and the newest one has none.",
    "checkpoint.named": "A checkpoint has its name, which is not on disk yet.",
    "pack.done": "A contribution is written, and the journal knows nothing of it.",
    "push.journaled": "The journal knows that a contribution sets out, and no byte was sent.",
    "push.answered": "The receipt has arrived, and nothing has followed from it.",
    "leave.said": "The membership is over, and the engine's state is not saved.",
    "drained.journaled": "The last word is in the journal, and was not said.",
}
