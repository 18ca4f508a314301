"""The trace of a batch of requests: prefill and decoding steps on one time axis, with one track per unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ohmformer.dataflow.timeline import trace
from ohmformer.errors import BadInput, shown

if TYPE_CHECKING:
    from ohmformer.dataflow.serving.served import Served


MOST_TRACED = 200_000
"""Maximum number of jobs of a trace, which makes a file of about 50 MB."""


def request_trace(served: Served, steps: int | None) -> dict[str, Any]:
    """The trace of the prefill and of the first `steps` decoding steps (None: of all), see `Timeline.chrome_trace`.

    Every event has `pass` ("prefill" or "step 0", "step 1", ...) and `context`, the cached tokens before its pass.

    Raises:
        BadInput: there are fewer steps, or too many jobs.
    """
    count = served.passes.generate - 1
    wanted = count if steps is None else steps
    if type(wanted) is not int or not 0 <= wanted <= count:
        raise BadInput(f"chrome_trace: steps = {shown(steps)}: must be a whole number from 0 to {count}; correct it")
    timelines = [served.timeline()]
    if wanted:
        jobs = len(timelines[0].jobs) + wanted * len(served.timeline(0).jobs)
        if jobs > MOST_TRACED:
            raise BadInput(
                f"chrome_trace: steps = {wanted}: takes {jobs:,} jobs; at most {MOST_TRACED:,} jobs are possible: "
                "trace fewer steps, or generate fewer tokens"
            )
    timelines += [served.timeline(index) for index in range(wanted)]
    passes = []
    for number, timeline in enumerate(timelines, -1):
        name = f"step {number}" if number >= 0 else "prefill"
        passes.append((timeline, {"pass": name, "context": timeline.placement.workload.context}))
    return trace(passes, served.pauses_until(wanted))
