"""Claims of papers as a table for a terminal, and as the page docs/validation.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from ohmformer import units
from ohmformer.terminal.files import write_text
from ohmformer.terminal.plain import clean
from ohmformer.validation.claims import YES_OR_NO, Checked, Paper

PLACE = Path("docs", "validation.md")
"""The page of all papers, below the current folder."""

MARK = "Written by `ohmformer validate"
"""Text by which a page that this command wrote is recognized."""

PIPE = r"\|"
"""How a cell of a table in Markdown holds a vertical bar."""

COLUMNS = ("claim", "where", "role", "reported", "modelled", "ratio", "tolerance", "verdict")


def claims_table(paper: Paper) -> Table:
    """One row for each claim."""
    table = Table(title=paper.title, title_justify="left", caption=summary(paper), caption_justify="left")
    for column in COLUMNS:
        table.add_column(
            column, overflow="fold", justify="right" if column in ("reported", "modelled", "ratio") else "left"
        )
    for entry in paper.claims:
        table.add_row(*_cells(entry))
    return table


def _cells(entry: Checked) -> tuple[str, ...]:
    return (
        entry.claim.claim,
        entry.claim.where,
        entry.claim.role.replace("_", " "),
        amount(entry.reported, entry),
        amount(entry.modelled, entry),
        "-" if entry.ratio is None else f"{entry.ratio:.2f}",
        f"{100 * entry.claim.tolerance:g} %" if entry.claim.role in ("validation", "calibration") else "-",
        entry.verdict,
    )


def amount(value: float | None, entry: Checked) -> str:
    """A value in its unit; 'yes' or 'no' for quantities that are 1 or 0."""
    if value is None:
        return "-"
    if entry.claim.quantity in YES_OR_NO:
        return "yes" if value else "no"
    if entry.unit == "op/J":
        return f"{value / 1e12:.4g} TOPS/W"
    return units.show(value, entry.unit) if entry.unit else f"{value:.4g}"


def summary(paper: Paper) -> str:
    """How many claims count, and how many of them are met."""
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
    """How many checked claims are missed, in one line; empty where none is."""
    count = sum(entry.failed for paper in papers for entry in paper.claims)
    checked = sum(entry.checked for paper in papers for entry in paper.claims)
    missed = f"{count} of {checked} checked claims are missed, hence exit code 1; the page says why each may differ"
    return missed if count else ""


def write_page(papers: list[Paper], file: Path | None, *, every: bool) -> str:
    """Write the page.

    Args:
        papers: those that the page shows.
        file: where the page goes; None for docs/validation.md below the current folder, if it has a folder docs, and
            only where `every` paper is in it. A page that somebody else wrote there is left alone.
        every: whether these are all papers.

    Returns:
        A sentence that says where the page is; empty where there is no place for it.

    Raises:
        BadInput: the page cannot be written.
    """
    place = file or PLACE
    if file is None:
        if not every or not PLACE.parent.is_dir():
            return ""
        if _is_foreign(PLACE):
            return f"{PLACE} is not a page of this command and stays as it is; name another place with --page"
    write_text(place, page(papers))
    return f"written to {place}"


def _is_foreign(file: Path) -> bool:
    """True if there is a file that this command did not write, or that cannot be read."""
    try:
        return file.is_file() and MARK not in file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True


def page(papers: list[Paper]) -> str:
    """The validation page in Markdown."""
    return "\n".join(_lines(papers)) + "\n"


def _lines(papers: list[Paper]) -> Iterator[str]:
    yield "# Validation"
    yield ""
    yield f"{MARK}`: what papers report, and what this model gives. A claim that fixed a"
    yield "parameter is a calibration: meeting it proves nothing. Nothing is tuned for one claim. The command ends with"
    yield "exit code 1 as long as a checked claim is missed, known as it may be."
    for paper in papers:
        yield from ("", f"## {_line(paper.title)}", "", f"{summary(paper)}.")
        if paper.note:
            yield from ("", _safe(paper.note))
        yield from ("", f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}")
        for entry in paper.claims:
            yield f"| {' | '.join(_line(cell).replace('|', PIPE) for cell in _cells(entry))} |"
        yield from ("", "What each rests on, and why it may differ:", "")
        for entry in paper.claims:
            yield f"- **{_line(entry.claim.claim)}** ({entry.verdict}): {_safe(entry.claim.why)}"


def _line(text: str) -> str:
    """Text of a claims file within a line of Markdown."""
    return _safe(" ".join(text.split()))


def _safe(text: str) -> str:
    """Text of a claims file in Markdown: no tags of HTML, and no characters that nobody sees."""
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", clean(text))
