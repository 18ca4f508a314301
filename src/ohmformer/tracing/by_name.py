"""The workload of a model, or of what a name stands for: a table of dimensions, or a source of models."""

from __future__ import annotations

from typing import Any

from torch import nn

from ohmformer import catalog
from ohmformer.errors import BadInput
from ohmformer.hardware.rules import Rules
from ohmformer.models.load import load_model
from ohmformer.tracing import trace as models
from ohmformer.workload.shapes import PREFIX, shapes
from ohmformer.workload.spec import Phase, Workload


def trace(
    model: nn.Module | str,
    sample: Any = None,
    *,
    phase: Phase | None = None,
    context: int | None = None,
    rules: Rules | None = None,
) -> Workload:
    """The products of one forward pass, and the work between them, as shapes.

    Args:
        model: as `ohmformer.tracing.trace.trace` has it, which says what is assumed; or a name: 'shapes:bert-base'
            (which takes no sample: `shapes` has its lengths), or a source of `load_model`.
        sample: a batch; left out for tables of dimensions.
        phase: `encode`, `prefill` or `decode`; by default what the model does.
        context: tokens in the cache before this pass.
        rules: name pattern -> None (or another rule), for what is to stay digital.

    Raises:
        BadInput: no such name, no sample, or a model, phase or length that is not understood.
    """
    if isinstance(model, str) and (model.startswith(PREFIX) or model in catalog.entries("shapes")):
        if sample is not None or rules:
            raise BadInput(
                f"{model}: is a table of dimensions, which takes no sample and no rules; leave them out, and take "
                "`shapes` where another length or batch is wanted"
            )
        return shapes(model, phase=phase, context=context or 0)
    if sample is None:
        raise BadInput("sample: is missing; give a batch of inputs, whose sizes are taken")
    found = load_model(model) if isinstance(model, str) else model
    return models.trace(found, sample, phase=phase, context=context, rules=rules)
