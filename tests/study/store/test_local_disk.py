"""Network file systems are recognized, and a folder has one driver."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ohmformer.errors import BadInput
from ohmformer.study.store.local_disk import network_file_system, one_driver

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:30 / /group rw shared:2 - nfs4 server:/group rw
24 23 0:31 / /group/local rw - xfs /dev/sdb1 rw
25 22 0:32 / /mnt/two\\040words rw - fuse.sshfs me@server: rw
26 22 0:33 / /scratch rw - lustre mds:/scratch rw
a line of another kind
"""


@pytest.mark.parametrize(
    ("path", "found"),
    {
        "/tmp/run": "",
        "/group/one/ohmformer-runs": "nfs4",
        "/group": "nfs4",
        "/groups/run": "",
        "/group/local/run": "",
        "/mnt/two words/run": "fuse.sshfs",
        "/scratch/a/b/results.sqlite": "lustre",
    }.items(),
)
def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(tmp_path: Path, path: str, found: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert network_file_system(Path(path), mounts) == found


def test_what_is_mounted_on_demand_is_recognized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anybody looks into such a folder, the list names the automounter alone."""
    mounts, look = tmp_path / "mountinfo", os.scandir
    mounts.write_text(f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:30 / {tmp_path} rw - autofs /etc/auto.home rw\n")

    def mount(folder: Path) -> Any:
        found = look(folder)
        with mounts.open("a") as file:
            file.write(f"24 23 0:31 / {folder} rw - nfs4 server:/users rw\n")
        return found

    monkeypatch.setattr(os, "scandir", mount)
    assert network_file_system(tmp_path / "ohmformer-runs" / "new", mounts) == "nfs4"


def test_without_a_list_of_mounts_nothing_is_known(tmp_path: Path) -> None:
    assert network_file_system(Path("/home"), tmp_path / "none") == ""


def test_a_folder_has_one_driver_at_a_time(tmp_path: Path) -> None:
    with (
        one_driver(tmp_path),
        pytest.raises(BadInput, match="another run computes into this folder; let it end"),
        one_driver(tmp_path),
    ):
        pass
    with one_driver(tmp_path):
        assert list(tmp_path.iterdir()) == [], "the lock leaves a file behind"
