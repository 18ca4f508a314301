"""Compare the numbers that papers report with those of the model. Free of torch.

A paper is a folder `papers/<name>` of the library with a claims.toml: `[paper]`, `[runs.<name>]` (settings of the cost
half), `[measured]` (see `ohmformer.validation.measured_accuracy`), and one `[[claim]]` for each number. Roles:

- `calibration`: a parameter was fitted to the number, so agreement is not evidence;
- `validation`: no parameter was fitted to the number;
- `shown`: not a number of the paper, but the result under another interpretation of it;
- `not_checkable`: no source gives the data that would be needed;
- `contradicted`: other numbers of the same paper contradict it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ohmformer import catalog
from ohmformer.errors import BadInput, cut, shown, suggest
from ohmformer.schema import validate
from ohmformer.study.results.spec import ClaimResult, ClaimResults, PaperResult
from ohmformer.study.sweep import Document
from ohmformer.validation.claim_file import Claim, ClaimsFile, reported_number
from ohmformer.validation.claim_quantities import QUANTITIES
from ohmformer.validation.claim_runs import Evaluator
from ohmformer.validation.measured_accuracy import Measured

Verdict = Literal[
    "met", "missed", "calibrated", "not met by its own calibration", "shown", "not checkable", "contradicts others",
    "not measured yet",
]  # fmt: skip


@dataclass(frozen=True)
class Checked:
    """A claim with its reported and its modeled number.

    Attributes:
        claim: the claim, as in the file.
        reported: reported number in SI units, or a plain number; None if the paper reports none.
        modeled: modeled number in the same unit; None if it cannot be computed.
        unit: SI unit of both; '' for plain numbers, '%' for fractions.
    """

    claim: Claim
    reported: float | None
    modeled: float | None
    unit: str

    @property
    def ratio(self) -> float | None:
        """Modeled over reported number; None if either is missing or the reported one is 0."""
        return None if self.modeled is None or not self.reported else self.modeled / self.reported

    @property
    def within(self) -> bool:
        """True if the ratio is within the tolerance."""
        return self.ratio is not None and abs(self.ratio - 1) <= self.claim.tolerance

    @property
    def verdict(self) -> Verdict:
        """The result of the comparison in words."""
        if self.unmeasured:
            return "not measured yet"
        match self.claim.role:
            case "validation":
                return "met" if self.within else "missed"
            case "calibration":
                return "calibrated" if self.within else "not met by its own calibration"
            case "shown":
                return "shown"
            case "contradicted":
                return "contradicts others"
        return "not checkable"

    @property
    def unmeasured(self) -> bool:
        """True if the quantity needs accuracies that have not been measured."""
        return bool(self.claim.quantity) and self.modeled is None

    @property
    def checked(self) -> bool:
        """True if the modeled number is compared with the reported one."""
        return self.claim.role in ("validation", "calibration") and not self.unmeasured

    @property
    def failed(self) -> bool:
        """True if the claim was checked and is not within its tolerance."""
        return self.checked and not self.within


@dataclass(frozen=True)
class Paper:
    """A paper with its checked claims."""

    name: str
    title: str
    note: str
    claims: tuple[Checked, ...]


def papers() -> dict[str, Path]:
    """Return name -> claims file of every paper in the library; user folders take precedence."""
    files: dict[str, Path] = {}
    for root in catalog.roots():
        for file in sorted((root / "papers").glob("*/claims.toml")):
            files.setdefault(file.parent.name, file)
    return files


def check(name: str) -> Paper:
    """Compute all claims of a paper.

    Args:
        name: name of the paper, a key of `papers()`.

    Raises:
        BadInput: there is no such paper, or its file is invalid.
    """
    files = papers()
    if name not in files:
        raise BadInput(f"{shown(name)} is not a paper in the library; {suggest(name, list(files))}")
    file = files[name]
    content = validate(ClaimsFile, catalog.read(file), where=str(file))
    try:
        measured = None if content.measured is None else Measured.read(file.parent, content.measured)
        evaluator = Evaluator(content.runs, measured)
        claims = tuple(check_claim(evaluator, _claim(table)) for table in content.claim)
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from error
    return Paper(name, content.paper.title or name, content.paper.note, claims)


def _claim(table: Document) -> Claim:
    """Validate one `[[claim]]`."""
    lists = {key: tuple(value) for key, value in table.items() if isinstance(value, list)}
    return validate(Claim, {**table, **lists}, where=cut(str(table.get("id", "claim"))))


def check_claim(evaluator: Evaluator, claim: Claim) -> Checked:
    """Compute the modeled number of a claim.

    Raises:
        BadInput: the quantity is unknown, or does not fit the runs of the claim.
    """
    if not claim.quantity:
        return Checked(claim, reported_number(claim, ""), None, "")
    if claim.quantity not in QUANTITIES:
        hint = suggest(claim.quantity, list(QUANTITIES))
        raise BadInput(f"{claim.id}: quantity = {shown(claim.quantity)}: {hint}")
    unit, compute = QUANTITIES[claim.quantity]
    try:
        value = compute(evaluator, claim)
    except ZeroDivisionError:
        value = math.nan
    if value is not None and not math.isfinite(value):
        raise BadInput(f"{claim.id}: quantity = {shown(claim.quantity)}: divides by zero for these runs; correct them")
    return Checked(claim, reported_number(claim, unit), value, unit)


def claims_document(papers: Sequence[Paper]) -> ClaimResults:
    """Return checked papers as a document."""
    return ClaimResults(
        schema=1,
        papers=tuple(PaperResult(paper=paper.name, claims=tuple(map(_result, paper.claims))) for paper in papers),
    )


def _result(checked: Checked) -> ClaimResult:
    """Return a checked claim as a row of the document."""
    return ClaimResult(
        id=checked.claim.id,
        claim=checked.claim.claim,
        where=checked.claim.where,
        role=checked.claim.role,
        reported=checked.reported,
        modeled=checked.modeled,
        unit=checked.unit,
        ratio=checked.ratio,
        tolerance=checked.claim.tolerance,
        verdict=checked.verdict,
        why=checked.claim.why,
    )
