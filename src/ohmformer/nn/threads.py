"""How threads share one converted model: what each keeps for itself, and which one may change settings."""

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
    """The values of the thread that reads them.

    Attributes:
        call: what the thread keeps of its calls; None in a thread that has never called the whole model.
        frames: what intercepts products now, innermost last; None where nothing does.
    """

    def __init__(self) -> None:
        self.call: T | None = None
        self.frames: list[object | None] = []


class Threads(Generic[T]):
    """One record of calls for every thread that has called the whole model.

    Other threads, such as those in which gradients are computed, share the record of the thread that called it last.

    Attributes:
        make: returns an empty record.
        here: what belongs to the current thread alone.
        latest: the record of the thread that called the whole model last; before any call, one that awaits its thread.
    """

    def __init__(self, make: Callable[[], T], latest: T | None = None) -> None:
        self.make = make
        self.here: OneThread[T] = OneThread()
        self.latest = make() if latest is None else latest
        self.claimed = False

    def enter(self) -> T:
        """The current thread calls the whole model: from now on it has a record of its own, which is returned."""
        call = self.here.call
        if call is None:
            # The first thread goes on with what was set before any call.
            call = self.here.call = self.make() if self.claimed else self.latest
            self.claimed = True
        self.latest = call
        return call

    @property
    def call(self) -> T:
        """The record that the current thread uses."""
        call = self.here.call
        return self.latest if call is None else call

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies go on where the current thread is."""
        return Threads, (self.make, self.call)


@dataclass(eq=False)
class Block:
    """A piece of work that sets a model up differently, until it ends.

    Attributes:
        verb: the public function that began it.
        unfinished: the model makes no sense inside, since its ranges are being calibrated.
    """

    verb: str
    unfinished: bool = False

    @property
    def remedy(self) -> str:
        """What another thread can do that needs the model meanwhile."""
        copies = "" if self.unfinished else ", or give each thread a copy of the model (copy.deepcopy)"
        return f"wait until it is done{copies}"


class Users:
    """Which threads are inside a call of a model, and which one changes its settings.

    Settings belong to the model, not to a thread. So while one thread is inside a block that changes them, other
    threads cannot call the model; and while one calls it, others cannot begin such a block. A block ends with its
    thread, too: settings are then those of before. Copies have no users.

    Attributes:
        callers: identifiers of threads that have begun a call.
        owner: the thread that is inside blocks; None outside of blocks.
        blocks: its blocks, the outermost first.
        before: the settings before the outermost block.
    """

    def __init__(self) -> None:
        self.callers: set[int] = set()
        self.owner: threading.Thread | None = None
        self.blocks: list[Block] = []
        self.before: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        self.lock = threading.RLock()

    def begin_call(self, *, replica: bool = False) -> None:
        """The current thread begins a call.

        Args:
            replica: a thread of `nn.DataParallel` calls one of its replicas, for the thread that waits for it.

        Raises:
            BadInput: another thread changes the settings.
        """
        self.callers.add(threading.get_ident())  # before the check, as `begin` does it the other way round
        if self.owner is not None and not replica:
            try:
                self.check()
            except BadInput:
                self.end_call()
                raise

    def end_call(self) -> None:
        """The call of the current thread ends, if it ever began."""
        self.callers.discard(threading.get_ident())

    def foreign_block(self) -> Block | None:
        """The outermost block of another thread, if one is inside a block. Gradient threads belong to any thread."""
        owner, blocks, me = self.owner, list(self.blocks), threading.current_thread()
        if owner is None or owner is me or not blocks:
            return None
        if in_backward() and isinstance(me, threading._DummyThread):  # PyTorch started it
            return None
        if not owner.is_alive():
            self._abandon(owner)
            return None
        return blocks[0]

    def check(self) -> None:
        """Check that no other thread changes the settings.

        Raises:
            BadInput: one does.
        """
        block = self.foreign_block()
        if block is not None:
            raise BadInput(
                f"another thread is inside {block.verb}, which changes settings of this model, and settings hold for "
                f"all threads; {block.remedy}"
            )

    def begin(self, block: Block, settings: dict[str, Any], names: tuple[str, ...]) -> None:
        """The current thread begins a block.

        Args:
            block: the block, for `end`.
            settings: values by name, in which those of before are put back should the thread end inside.
            names: names of the settings.

        Raises:
            BadInput: another thread is inside a block, or inside a call.
        """
        with self.lock:
            self.check()
            self.blocks.append(block)
            if len(self.blocks) == 1:
                self.settings, self.before = settings, {name: settings[name] for name in names}
                self.owner = threading.current_thread()
            if any(_computing(thread) for thread in list(self.callers) if thread != threading.get_ident()):
                self.end(block)
                raise BadInput(
                    f"{block.verb}: another thread is calling this model, and settings hold for all threads; wait "
                    "until it is done, or give each thread a copy of the model (copy.deepcopy)"
                )

    def end(self, block: Block) -> None:
        """A block ends, in whichever thread."""
        with self.lock:
            if block in self.blocks:
                self.blocks.remove(block)
            if not self.blocks:
                self.owner, self.before, self.settings = None, {}, {}

    def _abandon(self, owner: threading.Thread) -> None:
        """The blocks of a thread end that has ended without leaving them."""
        with self.lock:
            if self.owner is owner:
                self.settings.update(self.before)
                self.blocks.clear()
                self.owner, self.before, self.settings = None, {}, {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies have no users."""
        return Users, ()


def _computing(thread: int) -> bool:
    """True if a thread is inside PyTorch. One whose call was interrupted, or that has ended, is not."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).startswith("torch."):
            return True
        frame = frame.f_back
    return False
