"""Tells from files alone whether a study is the one that was shown before, by the same code on the same machine."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from ohmformer import catalog, registry
from ohmformer.errors import BadInput
from ohmformer.study.results.key import PACKAGE, digest, versions

GROUP = "ohmformer."
"""Beginning of the names of groups of entry points, by which other packages add entries and kinds."""

NUMERIC = ("ATEN_", "DNNL_", "KMP_", "MKL_", "OMP_", "ONEDNN_", "OPENBLAS_", "PYTORCH_", "TORCH_")
"""Beginnings of the names of environment variables by which libraries choose how they compute."""

FILE = ".toml"
"""End of the names of files that a study can name in place of entries of the library."""

CPU = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Fingerprint:
    """What a study is before it is read.

    Attributes:
        name: name of the study.
        digest: of all that decides its points, their keys, and what is shown of them.
    """

    name: str
    digest: str


def fingerprint(verb: str, study: str, sets: Sequence[str]) -> Fingerprint | None:
    """The fingerprint of a study.

    It covers the file of the study, the command, every file of this package (code, library, bundled models and data),
    versions of packages, and the processor. That is all only where no other package, no file beside that of the study
    and no other model or data take part. Whether model and data are bundled is for the caller to know.

    Args:
        verb: of the command line.
        study: file or name of the study.
        sets: its changes.

    Returns:
        The fingerprint; None if further files may take part, or if the file cannot be read.
    """
    if os.environ.get("OHMFORMER_LIBRARY") or any("\\" in each for each in sets) or _others_take_part():
        return None
    try:
        file = catalog.find("study", study) if study.endswith(".toml") else catalog.entries("study").get(study)
        document = catalog.read(file) if file else {}
    except BadInput:
        return None
    name, content = document.get("name"), repr(document)
    if not isinstance(name, str) or any(FILE in each for each in (content, *sets)):
        return None
    environment = sorted(each for each in os.environ.items() if each[0].startswith(NUMERIC))
    command = [verb, study, str(file), *sets]
    here = [_package_digest(), versions(), sys.version, _processor(), environment]
    return Fingerprint(name, digest([content, command, *here]))


def _others_take_part() -> bool:
    """True if other packages are installed that add entries or kinds, or if this process has kinds of others."""
    if any(group.startswith(GROUP) for group in entry_points().groups):
        return True
    kinds = (kind for family in registry.families().values() for kind in family.kinds().values())
    return not all(map(registry.is_own, kinds))


def _package_digest() -> str:
    """SHA-256 over all files of the package."""
    sha256 = hashlib.sha256()
    for file in _files(PACKAGE):
        content = file.read_bytes()
        sha256.update(f"{file.relative_to(PACKAGE).as_posix()}\n{len(content)}\n".encode(errors="surrogateescape"))
        sha256.update(content)
    return sha256.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        yield from (Path(place, name) for name in sorted(names))


def _processor() -> list[str]:
    """What is known of the processor, whose instructions may round otherwise than those of another one."""
    try:
        first = CPU.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        first = platform.processor()
    lines = [line for line in first.splitlines() if line.startswith(("model name", "flags", "Features", "CPU"))]
    return [platform.system(), platform.machine(), *(lines or [platform.processor()])]
