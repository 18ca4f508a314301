"""`trace` of a model, or of a name: a table of dimensions, or a source of models."""

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
    """Make the workload of one forward pass: its products, and the work between them, as shapes.

    Args:
        model: a model (see `ohmformer.tracing.trace.trace`), a source of `load_model`, or the name of a table of
            dimensions, such as 'shapes:bert-base' (call `shapes` for other lengths).
        sample: a batch of inputs; None for tables of dimensions.
        phase: `encode`, `prefill` or `decode`; by default it follows from the model and the sample.
        context: tokens in the KV cache before this pass.
        rules: name pattern -> rule; None keeps the products of the modules or operands that match digital.

    Raises:
        BadInput: the name is unknown, the sample is missing, or the model, phase or length is not understood.
    """
    if isinstance(model, str) and (model.startswith(PREFIX) or model in catalog.entries("shapes")):
        if sample is not None or rules:
            raise BadInput(
                f"{model}: is a table of dimensions, which takes no sample and no rules; leave them out, and call "
                "`shapes` for another length or batch"
            )
        return shapes(model, phase=phase, context=context or 0)
    if sample is None:
        raise BadInput("sample: is missing; give a batch of inputs, whose sizes are taken")
    loaded = load_model(model) if isinstance(model, str) else model
    return models.trace(loaded, sample, phase=phase, context=context, rules=rules)
