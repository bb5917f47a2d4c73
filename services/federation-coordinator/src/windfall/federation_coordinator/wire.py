"""How ``Training`` is put on a server: bulk frames pass protobuf by (``windfall.servicekit.frames``)."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Final

import grpc

from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1 import training_pb2_grpc as rpc
from windfall.federation_coordinator.checks import Refusal
from windfall.federation_coordinator.incoming import Chunk
from windfall.federation_coordinator.outer_step import Base, Stretch, size_of
from windfall.federation_coordinator.turns import Turn
from windfall.servicekit.frames import INVITED, framed, unframed
from windfall.servicekit.rpc import CHUNK_BYTES

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["Training"].full_name
_PULLED: Final = pb.PullFrame.DATA_FIELD_NUMBER
_PUSHED: Final = pb.PushFrame.DATA_FIELD_NUMBER
_KEPT_FRAMES: Final = 6

PullFrame = pb.PullFrame | bytes
"""A frame, or the wire form of one."""
PushFrame = pb.PushFrame | memoryview
"""A frame, or the bytes of one that holds nothing else."""


def register(servicer: rpc.TrainingServicer, server: Any) -> None:
    """In place of the generated function. ``Pull`` may yield any ``PullFrame``; ``Push`` is given ``PushFrame``."""
    rpc.add_TrainingServicer_to_server(servicer, server)
    bulk = {
        "Pull": grpc.unary_stream_rpc_method_handler(servicer.Pull, pb.PullRequest.FromString, _written),
        "Push": grpc.stream_unary_rpc_method_handler(servicer.Push, read_frame, pb.PushReceipt.SerializeToString),
    }
    # What is registered last counts.
    server.add_registered_method_handlers(_SERVICE, bulk)


def pull_frame(data: bytes | memoryview) -> bytes:
    """A frame of a download, as it travels."""
    return framed(_PULLED, data)


class Frames:
    """The last chunks that went down. Sites pull a new base at once and nearly in step: it is read once for them."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[Path, int, int], bytes] = OrderedDict()

    def of(self, stretches: Sequence[Stretch], offset: int) -> Iterator[tuple[bytes, int]]:
        """Stretches that lie end to end, from an offset on: frames, and how many bytes are in each.

        Raises:
            FileNotFoundError: a round has pruned one of them already.
        """
        with ExitStack() as stack:
            # An open file stays what it was, even when the next round prunes its name.
            paths = {stretch.path for stretch in stretches if isinstance(stretch, Base)}
            files = {path: stack.enter_context(path.open("rb")) for path in paths}
            before = 0
            for stretch in stretches:
                size = size_of([stretch])
                for start in range(max(0, offset - before), size, CHUNK_BYTES):
                    count = min(CHUNK_BYTES, size - start)
                    if isinstance(stretch, Base):
                        yield self._read(files[stretch.path], stretch, start, count), count
                    else:
                        yield pull_frame(stretch[start : start + count]), count
                before += size

    def _read(self, file: BinaryIO, stretch: Base, start: int, count: int) -> bytes:
        key = (stretch.path, stretch.data_start + start, count)
        frame = self._last.get(key)
        if frame is None:
            file.seek(stretch.data_start + start)
            frame = self._last[key] = pull_frame(file.read(count))
            if len(self._last) > _KEPT_FRAMES:
                self._last.popitem(last=False)
        return frame


async def invited(frames: AsyncIterator[PushFrame], context: Any, turn: Turn) -> AsyncIterator[Chunk]:
    """The bytes of a contribution, asked for when somebody wants the first of them and it has its turn.

    Raises:
        Refusal: a second manifest comes.
    """
    await turn()
    await context.send_initial_metadata(((INVITED, "1"),))
    async for frame in frames:
        if isinstance(frame, memoryview):
            yield frame
        elif frame.WhichOneof("kind") == "data":
            yield frame.data
        else:
            raise Refusal("size", "a second manifest in one stream")


def _written(frame: PullFrame) -> bytes:
    return frame if isinstance(frame, bytes) else frame.SerializeToString()


def read_frame(message: bytes) -> PushFrame:
    data = unframed(_PUSHED, message)
    return pb.PushFrame.FromString(message) if data is None else data
