"""Where a rehearsal may let the coordinator die: every edge at which what is on disk changes or is about to."""

from collections.abc import Mapping
from typing import Final

POINTS: Final[Mapping[str, str]] = {
    "file.written": "A file is written to its draft, and is not on disk yet.",
    "file.synced": "A draft is on disk, and has not its name yet.",
    "file.named": "A file has its name, which is not on disk yet.",
    "file.whole": "A file and its name are on disk.",
    "join.admitted": "A site is a member in the journal, and has not been told.",
    "push.begun": "A manifest has passed, and no byte was taken.",
    "push.first-byte": "The first bytes of a contribution are on their way to disk.",
    "push.received": "All bytes of a contribution are there, under no name that counts.",
    "push.sealed": "A contribution is on disk under its own name, and was not looked at.",
    "accept.checked": "A contribution has passed every check, and is not journaled.",
    "accept.journaled": "A contribution counts, and its site has not been told.",
    "finish.journaled": "A round is over in the journal, and nobody has been told.",
    "leave.journaled": "A membership has ended in the journal, and the site has not been told.",
    "merge.begun": "The contributions of a round are about to be merged.",
    "merge.stepped": "The next base and its outer state lie on disk; the round is not in the outer log.",
    "merge.done": "Everything of the next round lies on disk, and the journal knows nothing of it.",
    "merge.journaled": "The round is completed in the journal, and nothing has been pruned.",
    "prune.removed": "Something that no crash can need any more is gone, and more will be.",
    "evaluation.done": "A model is evaluated, and nothing was said.",
    "export.written": "The last model lies where a person finds it, and the last word is not said.",
    "rebuild.planned": "Damage is journaled, and the damaged base is about to be made again.",
    "rebuild.done": "The damaged base is made again.",
    "fallback.laid": "The previous base lies under the next round's name, and the journal knows nothing of it.",
}
