"""Results of the rescue: from stored studies to figures, tables and claims.

python rescue.py collect studies/NAME.toml [--runs FOLDER]
    takes what a study has stored, finished or not, into results/.
python rescue.py
    draws all figures, fills docs/rescue_details.md, and writes the paper's claims anew; what is missing is said to be.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from common.collecting import add_collect, collect_as_asked
from common.curves import Curves, paired
from common.pages import MISSING, NOTHING, filled
from common.panels import draw_all
from costs import cost_block
from figures import DRAWN, conductances
from judged import judged_block
from stored import CHANCE, COMPARED, GAMMAS, HERE, METHODS, RESULTS, STUDIES, TRAINED, curves
from tables import ablation_block, clipping_block, study_block

from ohmformer.errors import BadInput
from ohmformer.validation.claims import check, papers
from ohmformer.validation.page import page

ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "rescue_details.md"
CLAIMS = ROOT / "src" / "ohmformer" / "library" / "papers" / "clipformer_tcad_2024" / "accuracy.json"
MODELS = {"standard": "vit_s", "vat": "vit_s_vat"}
"""Model of the claims -> its study."""

PLATFORM_CHAINS = (("standard.none", "vat.none"), ("vat.none", "standard.clip"), ("standard.clip", "vat.clip"))
"""Differences between models that claims ask for, beside those between methods of one model."""


def blocks(results: Path) -> dict[str, str]:
    """Marker -> what stands between its two lines in docs/rescue_details.md."""
    found = {name: curves(name, results) for name in STUDIES}
    tables = {name: study_block(curve) for name, curve in found.items()}
    return {
        **tables,
        "judged": judged_block(found["vit_s"], {ending: found[f"vit_s{ending}"] for ending in TRAINED}),
        "clipping": clipping_block(found),
        "ablation": ablation_block(results),
        "conductances": conductance_block(results),
        "cost": cost_block(),
    }


def conductance_block(results: Path) -> str:
    """Medians and tails of conductances, and the mean signal-to-noise ratio, by method."""
    models = conductances(results)["models"]
    if not models:
        return NOTHING
    lines = [
        "| model | γ | K and V | median of K, V | 99 % of K, V below | of K, V above a quarter "
        "| signal / noise of the layers, dB: mean (least) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, model in models.items():
        for gamma, entry in model["noise"].items():
            for method, layers in entry["snr"].items():
                ratios = [mean for mean, *_ in layers]
                (k, v), title = (entry["quantiles"][method][axis] for axis in "KV"), STUDIES[name].split(",")[0]
                shares = [entry["histograms"][method][axis] for axis in "KV"]
                large = ", ".join(f"{100 * sum(share[len(share) // 4 :]):.0f} %" for share in shares)
                lines.append(
                    f"| {title} | {gamma} | {METHODS[method]} | {k[0]:.2f}, {v[0]:.2f} | {k[2]:.2f}, {v[2]:.2f} "
                    f"| {large} | {sum(ratios) / len(ratios):.1f} ({min(ratios):.1f}) |"
                )
    return "\n".join(lines)


def measured(results: Path) -> dict[str, Any]:
    """What the claims of the paper are judged by: means by gamma, and paired gains at the noise levels of the paper."""
    found = {model: curve for model, name in MODELS.items() if (curve := curves(name, results)) is not None}
    return {
        "schema": 1,
        "made_by": "reproductions/clipformer_tcad_2024/rescue.py",
        "series": {model: _series(curve) for model, curve in found.items()},
        "gains": _gains(found),
    }


def _series(curve: Curves) -> dict[str, Any]:
    means = {
        method: {f"{gamma:g}": round(point.accuracy.mean, 6) for gamma, point in column.items()}
        for method, column in curve.found.items()
    }
    first = curve.first.accuracy
    sizes = {"chips": len(first.chips), "samples": first.samples}
    return {
        "study": curve.name,
        "software": curve.software,
        "chance": CHANCE,
        "sigma": curve.sigma,
        **sizes,
        "means": means,
    }


def _gains(found: dict[str, Curves]) -> list[dict[str, Any]]:
    own = [(f"{model}.{than}", f"{model}.{better}") for model in found for than, better in COMPARED]
    gains = []
    for than, better in (*own, *PLATFORM_CHAINS):
        for gamma in GAMMAS:
            point, reference = (_point(found, name, gamma) for name in (better, than))
            gain = paired(point, reference, gamma)
            if gain is not None:
                bounds = {"mean": gain.mean, "low": gain.low, "high": gain.high}
                rounded = {name: round(float(value), 6) for name, value in bounds.items()}
                gains.append({"better": better, "than": than, "gamma": gamma, **rounded})
    return gains


def _point(found: dict[str, Curves], name: str, gamma: float) -> Any:
    model, method = name.split(".")
    return found[model].found.get(method, {}).get(gamma) if model in found else None


def report(results: Path = RESULTS, root: Path = ROOT) -> None:
    """All figures, the page and the claims."""
    files = draw_all(DRAWN, results, root / "docs" / "figures", "rescue")
    target = root / PAGE.relative_to(ROOT)
    target.write_text(filled(PAGE.name, target.read_text(encoding="utf-8"), blocks(results)), encoding="utf-8")
    claims = root / CLAIMS.relative_to(ROOT)
    claims.write_text(json.dumps(measured(results), indent=1) + "\n", encoding="utf-8")
    missing = [name for name in STUDIES if curves(name, results) is None]
    print(
        f"{len(files)} figures, {target.name} and {claims.name} written; {MISSING}: {', '.join(missing) or 'nothing'}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Collect or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_collect(parser)
    options = parser.parse_args(arguments)
    if options.command == "collect":
        collect_as_asked(options, RESULTS)
        return
    report()
    pages = ROOT / "docs" / "validation.md"
    pages.write_text(page([check(name) for name in papers()]), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        raise SystemExit(str(error)) from None
