"""Threads that share one converted model: each has a record of its calls, and one at a time may change settings."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ohmformer.capture.torch_private import in_backward
from ohmformer.errors import BadInput

T = TypeVar("T")


class OneThread(threading.local, Generic[T]):
    """Values that belong to one thread: each thread reads its own.

    Attributes:
        call: the record of the thread's calls; None in a thread that has never called the whole model.
        frames: the active interceptions of products, innermost last; an entry None marks a module that runs digitally.
    """

    def __init__(self) -> None:
        self.call: T | None = None
        self.frames: list[object | None] = []


class Threads(Generic[T]):
    """Records of calls, one for every thread that has called the whole model.

    Other threads, such as those in which gradients are computed, use the record of the thread that called it last.

    Attributes:
        make: function that returns an empty record.
        here: the values of the current thread.
        latest: the record of the thread that called the whole model last; before any call, the record that the first
            calling thread will take.
        claimed: True once a thread has taken that first record.
    """

    def __init__(self, make: Callable[[], T], latest: T | None = None) -> None:
        self.make = make
        self.here: OneThread[T] = OneThread()
        self.latest = make() if latest is None else latest
        self.claimed = False

    def enter(self) -> T:
        """Return the record of the current thread, which calls the whole model; its first call creates the record."""
        call = self.here.call
        if call is None:
            # Values that were set before any call belong to the first thread.
            call = self.here.call = self.make() if self.claimed else self.latest
            self.claimed = True
        self.latest = call
        return call

    @property
    def call(self) -> T:
        """Return the record that the current thread uses."""
        call = self.here.call
        return self.latest if call is None else call

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy starts with the record of the current thread."""
        return Threads, (self.make, self.call)


@dataclass(eq=False)
class SettingsBlock:
    """A stretch of work during which one thread may change the settings of a model.

    Attributes:
        verb: the public function that began it.
        unfinished: copies of the model made meanwhile are useless, since its ranges are being calibrated.
    """

    verb: str
    unfinished: bool = False

    @property
    def remedy(self) -> str:
        """Return what another thread can do that needs the model meanwhile."""
        copies = "" if self.unfinished else ", or give each thread a copy of the model (copy.deepcopy)"
        return f"wait until it is done{copies}"


class Users:
    """The threads that are inside a call of a model, and the one that changes its settings.

    Settings belong to the model, not to a thread. So while one thread is inside a block that changes them, other
    threads cannot call the model; and while one calls it, others cannot begin such a block. If a thread ends inside a
    block, the block ends and the former settings return. Copies of a model have no users.

    Attributes:
        callers: identifiers of threads that have begun a call.
        owner: the thread that is inside blocks; None outside of blocks.
        blocks: its blocks, the outermost first.
        settings: the settings by name, which the block may change.
        before: their values before the outermost block.
        lock: held while a block begins or ends.
    """

    def __init__(self) -> None:
        self.callers: set[int] = set()
        self.owner: threading.Thread | None = None
        self.blocks: list[SettingsBlock] = []
        self.before: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        self.lock = threading.RLock()

    def begin_call(self, *, replica: bool = False) -> None:
        """Note that the current thread begins a call.

        Args:
            replica: the called model is a replica of `nn.DataParallel`; its thread works for one that may own blocks.

        Raises:
            BadInput: another thread changes the settings.
        """
        # Noted first and checked second; `begin` does both in the other order, so that one of the two sees the other.
        self.callers.add(threading.get_ident())
        if self.owner is not None and not replica:
            try:
                self.check()
            except BadInput:
                self.end_call()
                raise

    def end_call(self) -> None:
        """Note that the call of the current thread ends; a call that never began is ignored."""
        self.callers.discard(threading.get_ident())

    def foreign_block(self) -> SettingsBlock | None:
        """Return the outermost block of another thread; None without one, or in a thread that computes gradients."""
        owner, blocks, me = self.owner, list(self.blocks), threading.current_thread()
        if owner is None or owner is me or not blocks:
            return None
        if in_backward() and isinstance(me, threading._DummyThread):  # PyTorch started this thread
            return None
        if not owner.is_alive():
            self._abandon(owner)
            return None
        return blocks[0]

    def check(self) -> None:
        """Refuse to go on while another thread changes the settings.

        Raises:
            BadInput: another thread is inside a block.
        """
        block = self.foreign_block()
        if block is not None:
            raise BadInput(
                f"another thread is inside {block.verb}, which changes settings of this model, and settings hold for "
                f"all threads; {block.remedy}"
            )

    def begin(self, block: SettingsBlock, settings: dict[str, Any], names: tuple[str, ...]) -> None:
        """Begin a block of the current thread.

        Args:
            block: the block, which `end` ends.
            settings: the attributes of the model's state by name; if the thread ends inside, they are restored here.
            names: names of those attributes that are settings.

        Raises:
            BadInput: another thread is inside a block, or inside a call.
        """
        with self.lock:
            self.check()
            self.blocks.append(block)
            if len(self.blocks) == 1:
                self.settings, self.before = settings, {name: settings[name] for name in names}
                self.owner = threading.current_thread()
            if any(_inside_pytorch(thread) for thread in list(self.callers) if thread != threading.get_ident()):
                self.end(block)
                raise BadInput(
                    f"{block.verb}: another thread is calling this model, and settings hold for all threads; wait "
                    "until it is done, or give each thread a copy of the model (copy.deepcopy)"
                )

    def end(self, block: SettingsBlock) -> None:
        """End a block; any thread may do so."""
        with self.lock:
            if block in self.blocks:
                self.blocks.remove(block)
            if not self.blocks:
                self.owner, self.before, self.settings = None, {}, {}

    def _abandon(self, owner: threading.Thread) -> None:
        """End the blocks of a thread that has ended inside them, and restore the settings."""
        with self.lock:
            if self.owner is owner:
                self.settings.update(self.before)
                self.blocks.clear()
                self.owner, self.before, self.settings = None, {}, {}

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has no users."""
        return Users, ()


def _inside_pytorch(thread: int) -> bool:
    """True if the thread with this identifier runs PyTorch; False if its call was interrupted or it has ended."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).startswith("torch."):
            return True
        frame = frame.f_back
    return False
