"""The dry run: it captures every product of a model on a sample batch, and finds the axes that hold the samples.

Shapes: B samples in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from ohmformer.capture.batch_axis import FIRST, BatchAxis, find_batch_axis, same_for_all
from ohmformer.capture.inputs import as_plain_dict, batch_size, call, tensors_in
from ohmformer.capture.kernels import Kernels
from ohmformer.capture.product import DigitalStep, PassRecord, Product
from ohmformer.capture.pytorch_quirks import evaluation_mode, uncompiled
from ohmformer.capture.recorder import Recorder
from ohmformer.capture.torch_private import compiler_loaded, tree_map_only
from ohmformer.errors import BadInput


@dataclass(frozen=True)
class Place:
    """The axes that hold the samples in the two factors of a product.

    Attributes:
        left: axis of the left factor; None if that factor is the same for all samples.
        right: axis of the right factor, likewise.
        known: False if the dry run does not show which rows belong to which sample.
    """

    left: BatchAxis | None
    right: BatchAxis | None
    known: bool = True


@dataclass(frozen=True)
class DryRun:
    """The record of one forward pass, with the axes that hold the samples.

    Attributes:
        seen: products, digital steps and calls of modules.
        places: for each product, the axes that hold the samples in its factors.
        axis: axis that holds the samples in the inputs of the model.
    """

    seen: PassRecord
    places: dict[Product, Place]
    axis: int


def record_pass(
    model: nn.Module, sample: Any, make_recorder: Callable[[nn.Module, PassRecord], Recorder] = Recorder
) -> PassRecord:
    """Run a model on a sample batch and record every product of the forward pass.

    Raises:
        BadInput: the model cannot be called with this sample, or not while its products are recorded.
    """
    compiles = compiler_loaded()
    record, failure = _try_recording(model, sample, make_recorder)
    if compiler_loaded() and not compiles:  # compiled code, such as that of flex_attention, hides its products
        torch.compiler.reset()
        record, failure = _try_recording(model, sample, make_recorder)
    if failure is None:
        return record
    if isinstance(failure, BadInput):  # a part of the model says what is wrong
        raise failure
    why = f"{type(failure).__name__}: {(str(failure).strip().splitlines() or [''])[0][:200]}"
    if not _runs(model, sample):
        raise BadInput(f"the model fails on the sample ({why}); correct one of them") from failure
    raise BadInput(
        f"{record.failed or 'the model itself'}: the model runs, but not while its products are recorded ({why}); "
        "write that part with ordinary operations of PyTorch, or move it out of the model"
    ) from failure


def _try_recording(
    model: nn.Module, sample: Any, make_recorder: Callable[[nn.Module, PassRecord], Recorder]
) -> tuple[PassRecord, Exception | None]:
    """The record of one call, and the error that ended the call; None if it did not fail."""
    record = PassRecord()
    recorder = make_recorder(model, record)
    try:
        with _record_module_calls(model, record), torch.no_grad(), uncompiled(), recorder, Kernels(recorder):
            call(model, sample)
    except Exception as error:
        return record, error
    return record, None


def _runs(model: nn.Module, sample: Any) -> bool:
    """True if the model can be called with this sample."""
    try:
        with torch.no_grad(), uncompiled():
            call(model, sample)
    except Exception:
        return False
    return True


@contextmanager
def refusing_random_models(model: nn.Module, sample: Any) -> Iterator[None]:
    """Context in which the refusal of a model names the cause if its outputs are random.

    The dry run compares two calls, so it cannot tell samples apart in such a model, and other remedies do not help.

    Raises:
        BadInput: the context refused the model, and two calls of it on one sample differ.
    """
    try:
        yield
    except BadInput as error:
        if _repeats(model, sample):
            raise
        raise BadInput(
            "the model itself gives another output when it is called again; make it deterministic (it may draw a mask, "
            "an order or a dropout in its forward)"
        ) from error


def _repeats(model: nn.Module, sample: Any) -> bool:
    """True if two calls of a model in evaluation mode give equal outputs, or if it cannot be called."""
    try:
        with evaluation_mode(model), torch.no_grad(), uncompiled():
            first, second = (tensors_in(as_plain_dict(call(model, sample))) for _ in range(2))
    except Exception:  # a model may raise anything
        return True
    return len(first) == len(second) and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)
        for a, b in zip(first, second, strict=True)
    )


def dry_run(model: nn.Module, sample: Any) -> DryRun:
    """Capture every product of one forward pass, and find the axes that hold the samples in its factors.

    The model runs twice, the second time with its samples exchanged; the values that move show the axes. The samples
    are taken to be the first axis of the inputs. If attention then mixes them, the second axis is tried (layouts
    with the sequence first).

    Raises:
        BadInput: the model cannot be called with this sample, or activations on it hold NaN or infinity.
    """
    first = None
    for axis in (0, 1):
        run = _run_with_samples_along(model, sample, axis)
        if run is None:
            continue
        if all(place.known for product, place in run.places.items() if _belongs_to_attention(product)):
            return run
        first = first or run
    if first is not None:
        return first
    record = record_pass(model, sample)
    return DryRun(record, {product: Place(FIRST, FIRST) for product in record.products}, 0)


def _belongs_to_attention(product: Product) -> bool:
    """True if a product belongs to attention, which must not mix samples."""
    return product.kind in ("attention", "multihead attention") or product.role != ""


def _run_with_samples_along(model: nn.Module, sample: Any, axis: int) -> DryRun | None:
    """The dry run with the samples along an axis of the inputs; None if the model fails on the exchanged samples."""
    B = batch_size(sample, axis)
    if B == 0:
        return None
    probe, B = _make_distinct(sample, axis, B)
    try:
        before = record_pass(model, probe)
        after = record_pass(model, _map_tensors(probe, axis, B, lambda t: t.roll(1, axis)))
    except BadInput:
        if axis == 0 and batch_size(sample) > 1:
            raise
        return None
    for product in before.products:
        if product.left is not None and not bool(product.left.values.isfinite().all()):
            raise BadInput(
                f"{product.module or 'the model itself'}: activations on the sample hold NaN or infinity; check the "
                "sample and the model"
            )
    if [p.operation for p in before.products] != [p.operation for p in after.products]:
        return DryRun(before, {p: _place_by_shape(p, B) for p in before.products}, axis)
    pairs = zip(before.products, after.products, strict=True)
    return DryRun(before, {p: _place_by_exchange(p, q, B) for p, q in pairs}, axis)


def _place_by_exchange(before: Product, after: Product, B: int) -> Place:
    """The axes of the samples in a product, from its signatures in the two runs."""
    if before.left is None or after.left is None:
        return Place(None, None, known=False)
    if before.kind == "multihead attention":
        assert before.right is not None
        assert after.right is not None
        both = find_batch_axis(before.right, after.right, B, prefer=1)
        return Place(both, both, known=both is not None and both.axis == 1)
    left = find_batch_axis(before.left, after.left, B)
    if before.right is None or after.right is None:
        return Place(left, None, known=left is not None or same_for_all(before.left, after.left))
    right = find_batch_axis(before.right, after.right, B)
    known = all(
        batch_axis is not None or same_for_all(one, two)
        for batch_axis, one, two in ((left, before.left, after.left), (right, before.right, after.right))
    )
    return Place(left, right, known and (left is not None or right is not None))


def _place_by_shape(product: Product, B: int) -> Place:
    """The axes of the samples where the two runs have different products, such as other experts: axis 0 if it fits."""
    if product.left is None:
        return Place(None, None, known=False)
    fits = product.left.values.dim() > 0 and product.left.values.shape[0] == B
    return Place(FIRST if fits else None, FIRST if fits else None, known=fits)


def _map_tensors(sample: Any, axis: int, B: int, change: Any) -> Any:
    """The sample with `change` applied to every tensor that has B places along an axis."""
    sample = as_plain_dict(sample)

    def change_if_batch(t: Tensor) -> Tensor:
        changed: Tensor = change(t) if t.dim() > axis and t.shape[axis] == B else t
        return changed

    return tree_map_only(Tensor, change_if_batch, sample)


def _make_distinct(sample: Any, axis: int, B: int) -> tuple[Any, int]:
    """The sample as a batch of at least two samples, with noise on floating tensors in which samples are equal; and B.

    Equal samples in integer tensors, such as token ids, stay equal.
    """
    if B == 1:
        sample = _map_tensors(sample, axis, 1, lambda t: torch.cat([t, _reverse(t, axis)], dim=axis))
        B = 2
    generator = torch.Generator().manual_seed(0)

    def add_noise_if_equal(t: Tensor) -> Tensor:
        if not t.is_floating_point() or t.dim() < 2 or t.is_meta or not bool(t.isfinite().all()):
            return t
        if len(t.movedim(axis, 0).flatten(1).unique(dim=0)) == B:
            return t
        noise = torch.randn(t.shape, generator=generator).to(t)
        return t + noise * (t.std() if float(t.std()) > 0 else 1.0)

    return _map_tensors(sample, axis, B, add_noise_if_equal), B


def _reverse(t: Tensor, axis: int) -> Tensor:
    """The values of a sample in reverse order along its last axis, which make a second, different sample."""
    other = [dim for dim in range(t.dim()) if dim != axis]
    return t.flip(other[-1]) if other else t


@contextmanager
def _record_module_calls(model: nn.Module, record: PassRecord) -> Iterator[None]:
    """Record the calls of modules, and the normalization layers that no function of PyTorch shows."""
    handles = []
    main_thread = get_ident()
    for name, module in model.named_modules():
        norm = "norm" in type(module).__name__.lower() and not any(module.children())

        def enter(_module: nn.Module, _args: Any, name: str = name) -> None:
            if get_ident() != main_thread:
                record.elsewhere.add(name)
                return
            record.stack.append(name)
            record.calls[name] += 1

        def leave(_module: nn.Module, _args: Any, output: Any, norm: bool = norm) -> None:
            if get_ident() != main_thread or not record.stack:  # empty if another hook refused the call before `enter`
                return
            name = record.stack.pop()
            if norm and isinstance(output, Tensor) and (not record.digital or record.digital[-1].module != name):
                record.digital.append(DigitalStep(name, "normalization", tuple(output.shape)))

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
