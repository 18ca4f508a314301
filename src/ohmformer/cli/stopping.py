"""Stops a verb at Ctrl-C and similar signals, with one line and the exit code that shells expect."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from ohmformer.cli.output import tell
from ohmformer.terminal.signals import Stopped, Stopping

stopping = Stopping()
"""The signal that stopped this process, if any: signals reach a process, so there is one such object in it."""


class Verbs(TyperGroup):
    """Verbs that stop at a signal with one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except typer.Exit:
            raise
        except BaseException as error:
            if stopping.number is None and not isinstance(error, (KeyboardInterrupt, Stopped)):
                raise
            tell(str(error) if isinstance(error, Stopped) else stopping.says)
            raise typer.Exit(stopping.code) from None
