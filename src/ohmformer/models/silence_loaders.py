"""Suppress the output of other libraries while they load models; errors that matter are raised in one line."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

LOGGERS = ("huggingface_hub", "timm", "transformers")
"""Loggers that are silenced."""


@contextmanager
def quietly() -> Iterator[None]:
    """Suppress warnings, progress bars and log lines. What is global to the process is restored on exit."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def without_error_output() -> Iterator[None]:
    """Discard what any code of this process writes to standard error, such as the traces of a failure in Rust."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (AttributeError, OSError, ValueError):  # standard error is closed
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
