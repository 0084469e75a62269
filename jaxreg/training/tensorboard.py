"""TensorBoard event files, written at once and by this thread. tensorboardX's format lives here.

tensorboardX's own writer hands events to a thread; where the disk is full that thread dies and the
next events wait for it for ever. A log is no reason to stop: where it cannot be written it says so
once and is silent from then on.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2

_FLUSH_SECONDS = 10.0
_EVENT: Any = getattr(event_pb2, "Event")  # noqa: B009 (made at import, unknown to type checkers)
_SESSION: Any = getattr(event_pb2, "SessionLog")  # noqa: B009


class EventLog:
    """The log of one process; what earlier processes wrote from `first_step` on is void."""

    def __init__(self, folder: Path, *, first_step: int):
        """Open a new file in the folder, which is made."""
        self._folder, self._flushed = folder, 0.0
        self._writer: EventsWriter | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Two runs in one second, the first killed, must not share the name: "wb" empties it.
            suffix = f".{time.time_ns()}"
            self._writer = EventsWriter(str(folder / "events"), filename_suffix=suffix)
        except OSError as error:
            self._give_up(error)
        # By this TensorBoard drops what a run that was cut off wrote beyond its last checkpoint.
        restart = _SESSION(status=_SESSION.START)
        self._write(_EVENT(step=first_step, session_log=restart))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Add named values."""
        for name, value in values.items():
            self._write(_EVENT(step=step, summary=summary.scalar(name, value)))

    def image(self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Add an RGB picture."""
        self._write(_EVENT(step=step, summary=summary.image(name, pixels, dataformats="HWC")))

    def flush(self) -> None:
        """Put what was added on the disk."""
        self._attempt(lambda writer: writer.flush())
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what is left and close the file."""
        self._attempt(lambda writer: writer.close())
        self._writer = None

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._attempt(lambda writer: writer.write_event(event))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def _attempt(self, action: Callable[[EventsWriter], object]) -> None:
        if self._writer is None:
            return
        try:
            action(self._writer)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        print(
            f"jaxreg: {self._folder}: TensorBoard log not written ({error.strerror or error}); "
            "training continues without it.",
            file=sys.stderr,
        )
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):  # what is still buffered fails once more
                writer.close()
