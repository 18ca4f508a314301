"""Which workers does `--cluster` ask for?"""

from __future__ import annotations

import re

from ohmformer.errors import BadInput, shown
from ohmformer.study.executors.dask_workers import DaskWorkers
from ohmformer.study.executors.local import LocalWorkers
from ohmformer.study.executors.ray_workers import RayWorkers
from ohmformer.study.executors.spec import Workers
from ohmformer.study.executors.worker import default_workers

ADDRESS = r"(tcp|tls)://[\w.\[\]:-]+:\d+"
"""Addresses of Dask schedulers."""


def chosen_workers(cluster: str | None, count: int | None) -> Workers:
    """The workers that a user asks for. Nothing is started yet.

    Args:
        cluster: `local` (Dask on this machine), `ray`, or the address of a Dask scheduler; None for processes of this
            command.
        count: number of workers; None for one for each core, or for all of a cluster.

    Raises:
        BadInput: there is no such cluster, its package is missing, or the count is out of bounds.
    """
    if cluster is None:
        return LocalWorkers(default_workers() if count is None else count)
    if cluster == "ray":
        return RayWorkers(count)
    if cluster == "local" or re.fullmatch(ADDRESS, cluster):
        return DaskWorkers(None if cluster == "local" else cluster, count)
    raise BadInput(
        f"--cluster {shown(cluster)}: must be local, ray or the address of a Dask scheduler, such as tcp://host:8786"
    )
