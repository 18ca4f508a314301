"""Write the checked claims of papers as a table for a terminal, and as the page docs/validation.md."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.table import Table

from ohmformer import units
from ohmformer.terminal.files import write_text
from ohmformer.terminal.plain import clean
from ohmformer.validation.claim_quantities import YES_OR_NO
from ohmformer.validation.claims import Checked, Paper

PAGE = Path("docs", "validation.md")
"""The page of all papers, relative to the working directory."""

MARK = "Written by `ohmformer validate"
"""Text by which a page of this command is recognized."""

PIPE = r"\|"
"""An escaped vertical bar in a Markdown table."""

AS_ABOVE = "As above."
"""The reason of a claim that shares the reason of the claim before it."""

COLUMNS = ("claim", "where", "role", "reported", "modeled", "ratio", "tolerance", "verdict")


def claims_table(paper: Paper) -> Table:
    """Return a table with one row per claim."""
    table = Table(title=paper.title, title_justify="left", caption=summary(paper), caption_justify="left")
    for column in COLUMNS:
        table.add_column(
            column, overflow="fold", justify="right" if column in ("reported", "modeled", "ratio") else "left"
        )
    for entry in paper.claims:
        table.add_row(*_cells(entry))
    return table


def _cells(entry: Checked) -> tuple[str, ...]:
    """Return the cells of a claim's row."""
    return (
        entry.claim.claim,
        entry.claim.where,
        entry.claim.role.replace("_", " "),
        amount(entry.reported, entry),
        amount(entry.modeled, entry),
        "-" if entry.ratio is None else f"{entry.ratio:.2f}",
        f"{100 * entry.claim.tolerance:g} %" if entry.claim.role in ("validation", "calibration") else "-",
        entry.verdict,
    )


def amount(value: float | None, entry: Checked) -> str:
    """Format a value with its unit; quantities of yes or no as words."""
    if value is None:
        return "-"
    if entry.claim.quantity in YES_OR_NO:
        return "yes" if value else "no"
    if entry.unit == "op/J":
        return f"{value / 1e12:.4g} TOPS/W"
    return units.show(value, entry.unit) if entry.unit else f"{value:.4g}"


def summary(paper: Paper) -> str:
    """Count the claims by role and verdict, in one line."""
    free = [entry for entry in paper.claims if entry.claim.role == "validation" and not entry.unmeasured]
    waiting = sum(entry.unmeasured for entry in paper.claims)
    met = sum(entry.within for entry in free)
    fixed = sum(entry.claim.role == "calibration" and not entry.unmeasured for entry in paper.claims)
    left = sum(entry.claim.role == "not_checkable" for entry in paper.claims)
    parts = [
        f"{met} of {len(free)} free claims are met",
        f"{fixed} fixed parameters, or follow from those, and do not count",
    ]
    parts.append(f"{left} cannot be checked")
    against = sum(entry.claim.role == "contradicted" for entry in paper.claims)
    if against:
        parts.append(f"{against} contradict others of the paper")
    if waiting:
        parts.append(f"{waiting} are not measured yet")
    return "; ".join(parts)


def failures(papers: list[Paper]) -> str:
    """Count the checked claims that are missed, in one line; empty if there are none."""
    count = sum(entry.failed for paper in papers for entry in paper.claims)
    checked = sum(entry.checked for paper in papers for entry in paper.claims)
    missed = f"{count} of {checked} checked claims are missed, hence exit code 1; the page says why each may differ"
    return missed if count else ""


def write_page(papers: list[Paper], file: Path | None, *, every: bool) -> str:
    """Write the page.

    Args:
        papers: the papers on the page.
        file: path of the page. None stands for docs/validation.md in the working directory; it is written only if the
            folder docs exists and `every` is true, and never over a file that this command did not write.
        every: whether `papers` are all papers in the library.

    Returns:
        A message with the path; empty if no page was written.

    Raises:
        BadInput: the file cannot be written.
    """
    path = file or PAGE
    if file is None:
        if not every or not os.path.isdir(PAGE.parent):
            return ""
        if _is_foreign(PAGE):
            return f"{PAGE} is not a page of this command and is left unchanged; name another file with --page"
    write_text(path, page(papers))
    return f"written to {path}"


def _is_foreign(file: Path) -> bool:
    """True if a file exists that this command did not write, or that cannot be read."""
    try:
        return file.is_file() and MARK not in file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True


def page(papers: list[Paper]) -> str:
    """Return the validation page in Markdown."""
    return "\n".join(_lines(papers)) + "\n"


def _lines(papers: list[Paper]) -> Iterator[str]:
    """Yield the lines of the page."""
    yield "# Validation"
    yield ""
    yield f"{MARK}`: what papers report, and what this model gives. A claim that fixed a"
    yield "parameter is a calibration: meeting it proves nothing. Nothing is tuned for one claim. The command ends with"
    yield "exit code 1 as long as any checked claim is missed, even if the page explains why."
    for paper in papers:
        yield from ("", f"## {_line(paper.title)}", "", f"{summary(paper)}.")
        if paper.note:
            yield from ("", _safe(paper.note))
        yield from ("", f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}")
        for entry in paper.claims:
            yield f"| {' | '.join(_line(cell).replace('|', PIPE) for cell in _cells(entry))} |"
        yield from ("", "What each rests on, and why it may differ:", "")
        yield from _reasons(paper.claims)


def _reasons(claims: Iterable[Checked]) -> Iterator[str]:
    """Yield one list item for each reason; claims that follow one another share it if reason and verdict are equal."""
    groups: list[list[Checked]] = []
    for entry in claims:
        before = groups[-1][0] if groups else entry
        if groups and entry.verdict == before.verdict and entry.claim.why in (before.claim.why, AS_ABOVE):
            groups[-1].append(entry)
        else:
            groups.append([entry])
    for group in groups:
        first, last = (f"**{_line(entry.claim.claim)}**" for entry in (group[0], group[-1]))
        verdict = group[0].verdict
        names = {
            1: f"{first} ({verdict})",
            2: f"{first} and {last} (both {verdict})",
        }.get(len(group), f"{first} to {last} ({len(group)} claims, all {verdict})")
        yield f"- {names}: {_safe(group[0].claim.why)}"


def _line(text: str) -> str:
    """Return text of a claims file on one line of Markdown."""
    return _safe(" ".join(text.split()))


def _safe(text: str) -> str:
    """Return text of a claims file in Markdown, without HTML tags and invisible characters."""
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", clean(text))
