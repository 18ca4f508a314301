"""What does a person type? One short function per verb, grouped by subject; free of torch until a verb computes."""

from ohmformer.cli.entry import main

__all__ = ["main"]
