"""Cells that are written once: from stored studies to the figures, tables and sentences of docs/rescue.md.

python written_once.py collect studies/NAME.toml [--runs FOLDER]
    takes what a study has stored, finished or not, into results/.
python written_once.py
    draws all figures and fills docs/rescue.md; what is missing is marked as not measured yet.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from choices import choices_block
from common.collecting import add_collect, collect_as_asked
from common.pages import MISSING, filled
from common.panels import draw_all
from drawing import DRAWN
from judging import judged_block
from methods import HERE, RESULTS, STUDIES, curves
from sections import answer_block, cells_block, cost_block, study_block

from ohmformer.errors import BadInput

ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "rescue.md"
CELLS = "vit_s_cells"
"""The study of measured cells, whose noise has no gamma."""


def blocks(results: Path) -> dict[str, str]:
    """Marker -> what stands between its two lines in docs/rescue.md."""
    found = {name: curves(name, results) for name in STUDIES}
    tables = {name: study_block(curve) for name, curve in found.items()}
    return {
        **tables,
        CELLS: cells_block(CELLS, results),
        "answer": answer_block(found),
        "judged": judged_block(found),
        "cost": cost_block(found),
        "choices": choices_block(found),
    }


def report(results: Path = RESULTS, root: Path = ROOT) -> None:
    """Draw all figures and fill the page."""
    files = draw_all(DRAWN, results, root / "docs" / "figures", "written_once")
    target = root / PAGE.relative_to(ROOT)
    target.write_text(filled(PAGE.name, target.read_text(encoding="utf-8"), blocks(results)), encoding="utf-8")
    missing = [name for name in STUDIES if not (results / f"{name}.json").exists()]
    print(f"{len(files)} figures and {target.name} written; {MISSING}: {', '.join(missing) or 'nothing'}")


def main(arguments: list[str] | None = None) -> None:
    """Collect or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_collect(parser)
    options = parser.parse_args(arguments)
    if options.command == "collect":
        collect_as_asked(options, RESULTS)
    else:
        report()


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        raise SystemExit(str(error)) from None
