"""Runs of too many jobs are refused before they start."""

from __future__ import annotations

import time

import pytest

from ohmformer.cost.placement import place
from ohmformer.dataflow.jobs import MOST_JOBS, count_jobs
from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import SequenceBlocking
from ohmformer.errors import BadInput
from ohmformer.hardware.entries import load
from ohmformer.hardware.spec import Accelerator
from ohmformer.workload.shapes import shapes


def test_too_many_jobs_are_refused_at_once_with_both_numbers() -> None:
    machine = load("xformer_tvlsi_2023")
    assert isinstance(machine, Accelerator)
    work, blocks = shapes("bert-base", tokens=512, batch=23), SequenceBlocking(block=1)
    count = count_jobs(place(work, machine), blocks)
    assert count == 1_000_960 > MOST_JOBS
    begun = time.process_time()
    said = r"model\.batch = 23: takes 1,000,960 jobs .*at most 1,000,000 .*lower batch or seq_len, or raise dataflow"
    with pytest.raises(BadInput, match=said):
        simulate(work, machine, blocks)
    assert time.process_time() - begun < 5
