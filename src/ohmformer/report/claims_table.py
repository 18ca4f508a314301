"""Claims of papers as a table for a terminal, and as the page docs/validation.md."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from ohmformer import units
from ohmformer.study.claims import Checked, Paper

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
    checked = entry.claim.role in ("validation", "calibration")
    return (
        entry.claim.claim,
        entry.claim.where,
        entry.claim.role.replace("_", " "),
        amount(entry.reported, entry),
        amount(entry.modelled, entry),
        "-" if entry.ratio is None else f"{entry.ratio:.2f}",
        f"{100 * entry.claim.tolerance:g} %" if checked else "-",
        entry.verdict,
    )


def amount(value: float | None, entry: Checked) -> str:
    """A value in its unit; whether something falls is yes or no."""
    if value is None:
        return "-"
    if entry.claim.quantity == "falls":
        return "yes" if value else "no"
    if entry.unit == "op/J":
        return f"{value / 1e12:.4g} TOPS/W"
    return units.show(value, entry.unit) if entry.unit else f"{value:.4g}"


def summary(paper: Paper) -> str:
    """How many claims count, and how many of them are met."""
    free = [entry for entry in paper.claims if entry.claim.role == "validation"]
    met = sum(entry.within for entry in free)
    fixed = sum(entry.claim.role == "calibration" for entry in paper.claims)
    left = sum(entry.claim.role == "not_checkable" for entry in paper.claims)
    parts = [
        f"{met} of {len(free)} free claims are met",
        f"{fixed} fixed parameters, or follow from those, and do not count",
    ]
    parts.append(f"{left} cannot be checked")
    against = sum(entry.claim.role == "contradicted" for entry in paper.claims)
    if against:
        parts.append(f"{against} contradict others of the paper")
    return "; ".join(parts)


def page(papers: list[Paper]) -> str:
    """The validation page in Markdown."""
    return "\n".join(_lines(papers)) + "\n"


def _lines(papers: list[Paper]) -> Iterator[str]:
    yield "# Validation"
    yield ""
    yield "Written by `ohmformer validate --page docs/validation.md`: what papers report, and what this model"
    yield "gives. A claim that fixed a parameter is a calibration: meeting it proves nothing. Nothing is tuned for one"
    yield "claim."
    for paper in papers:
        yield from ("", f"## {paper.title}", "", f"{summary(paper)}.")
        if paper.note:
            yield from ("", paper.note)
        yield from ("", f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}")
        for entry in paper.claims:
            yield f"| {' | '.join(_cells(entry))} |"
        yield from ("", "What each rests on, and why it may differ:", "")
        for entry in paper.claims:
            yield f"- **{entry.claim.claim}** ({entry.verdict}): {entry.claim.why}"
