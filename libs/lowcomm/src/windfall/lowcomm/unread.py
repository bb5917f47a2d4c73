"""A contribution in memory that is decoded when it is looked at."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from windfall.lowcomm.codec import Buffer
from windfall.lowcomm.contribution import decode
from windfall.lowcomm.layout import Split
from windfall.lowcomm.sparse import Contribution

if TYPE_CHECKING:
    from windfall.lowcomm.rule import Rule


class Unread(Sequence[Contribution]):
    """The parts of messages that were checked, decoded each time that they are looked at: they may be large."""

    def __init__(self, rule: "Rule", messages: Buffer, elements: Split, codec: str = "") -> None:
        self._payloads = rule.payloads(messages, elements, whole=True, codec=codec)

    def __len__(self) -> int:
        return len(self._payloads)

    @overload
    def __getitem__(self, index: int) -> Contribution: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Contribution]: ...
    def __getitem__(self, index: int | slice) -> Contribution | Sequence[Contribution]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        header, payload = self._payloads[index]
        return decode(header.codec, payload, header.elements)
