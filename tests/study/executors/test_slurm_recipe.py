"""The file for sbatch in docs/runs.md runs a study, with an `srun` that starts its tasks on this machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ohmformer.study.store.store import Store
from tests.cli.drivers import stopped_if_it_fails
from tests.study.executors.drives import DASK
from tests.study.processes import PATHS, ROOT, wait_until

pytestmark = [
    pytest.mark.slow,
    DASK,
    pytest.mark.skipif(os.name != "posix", reason="the file is a shell script"),
]

STUDY = """
name = "small"
model.source = "bundled:fashion-vit"
task = {{ source = "bundled:fashion-mnist", limit = 10 }}
hardware.base = "clipformer_tcad_2024"
sweep."trials.chips" = {chips}
"""

SRUN = """#!/bin/bash
trap 'kill $(jobs -p)' TERM
while [[ $1 == --* ]]; do shift; done
for ((task = 0; task < 2; task++)); do "$@" & done
wait
"""


def recipe() -> str:
    page = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", page, re.DOTALL)
    return str(found)


@pytest.fixture
def job(tmp_path: Path) -> list[str]:
    """The command that runs the job, in a folder with commands of this environment."""
    commands = {"srun": SRUN, "hostname": "#!/bin/sh\necho 127.0.0.1\n"}
    for name, module in (("dask", "dask"), ("ohmformer", "ohmformer.cli")):
        commands[name] = f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n'
    (tmp_path / "bin").mkdir()
    for name, text in commands.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "activate").write_text(f"PATH={tmp_path / 'bin'}:$PATH\n")
    script = recipe()
    assert "source ~/ohmformer-env/bin/activate\n" in script
    (tmp_path / "job.sh").write_text(script.replace("~/ohmformer-env/bin/activate", str(tmp_path / "activate")))
    return ["bash", "job.sh"]


def start(job: list[str], folder: Path) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        **PATHS,
        "SLURM_JOB_ID": str(os.getpid()),
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(folder),
    }
    pipe = subprocess.PIPE
    return subprocess.Popen(
        job, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def stored(folder: Path) -> int:
    with Store(folder / "results.sqlite") as store:
        return len(store)


def test_the_recipe_for_slurm_runs_a_study_and_keeps_what_is_stored_when_its_time_is_over(
    tmp_path: Path, job: list[str]
) -> None:
    (tmp_path / "study.toml").write_text(STUDY.format(chips=[2, 3, 999_999]))
    with stopped_if_it_fails(start(job, tmp_path)) as process:
        (local,) = wait_for_folders(tmp_path)
        assert wait_until(lambda: (local / "results.sqlite").exists() and stored(local) == 2, 250)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=100)
    assert process.returncode == 143, err
    assert "stopped: 2 of 3 points stored; run again to go on" in err
    assert stored(tmp_path / "runs" / "study") == 2
    assert not local.exists()
    for name in ("wal", "shm"):  # as after a command that was killed
        (tmp_path / "runs" / "study" / f"results.sqlite-{name}").touch()
    (tmp_path / "study.toml").write_text(STUDY.format(chips=[2, 3, 4]))
    with stopped_if_it_fails(start(job, tmp_path)) as process:
        err = process.communicate(timeout=280)[1]
    assert process.returncode == 0, err
    results = json.loads((tmp_path / "runs" / "study" / "results.json").read_text())
    assert [len(point["accuracy"]["chips"]) for point in results["points"]] == [2, 3, 4]
    assert not list((tmp_path / "runs" / "study").glob("results.sqlite-*"))
    assert wait_until(lambda: not in_group(process.pid)), "scheduler or workers live on"


def in_group(group: int) -> bool:
    """Whether a process of a group runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_folders(folder: Path) -> list[Path]:
    assert wait_until(lambda: any(folder.glob("tmp.*")))
    return list(folder.glob("tmp.*"))
