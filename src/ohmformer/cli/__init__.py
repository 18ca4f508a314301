"""Which verbs and options does the command line have? One function per verb; free of torch until a verb computes."""

from ohmformer.cli.entry import main

__all__ = ["main"]
