"""The verb export."""

from __future__ import annotations

from pathlib import Path

from ohmformer.cli.options import RunFolder, Table
from ohmformer.cli.output import check_writable, goes_to_stdout, show, write


def export(run: RunFolder, output: Table) -> None:
    """Write the stored results of a run, finished or not, as a table with one row for each point."""
    from ohmformer.study.results.export import check_suffix, results

    to_stdout = goes_to_stdout(output)
    if not to_stdout:
        check_suffix(Path(output))
        check_writable(output, "--output")
    stored = results(run)
    if to_stdout:
        write(stored.csv(), output)
    else:
        stored.save(output)
    missing = f"; {stored.missing} points have no result yet" if stored.missing else ""
    count = "1 point" if len(stored.rows) == 1 else f"{len(stored.rows)} points"
    show(f"{count}, {len(stored.columns)} columns{missing}", to_stderr=to_stdout)
