"""A dry run that sees every product of a model: what multiplies what, whose it is, and where samples stand in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ohmformer.capture.batch_axis import FIRST, BatchAxis, find_batch_axis, same_for_all
from ohmformer.capture.inputs import _plain, batch_size, call
from ohmformer.capture.kernels import Kernels
from ohmformer.capture.product import Digital, Product, Seen
from ohmformer.capture.pytorch_quirks import compiler_loaded, forget_compiled, uncompiled
from ohmformer.capture.recorder import Recorder
from ohmformer.errors import BadInput


@dataclass(frozen=True)
class Place:
    """Where samples stand in the two factors of a product; None where a factor is the same for all samples."""

    left: BatchAxis | None
    right: BatchAxis | None
    known: bool = True


@dataclass(frozen=True)
class DryRun:
    """What one forward pass did, and where samples stand in it.

    Attributes:
        seen: products, digital work and calls.
        places: for each product.
        axis: along which samples stand in the inputs of the model.
    """

    seen: Seen
    places: dict[Product, Place]
    axis: int


def watch(model: nn.Module, sample: Any, kind: Callable[[nn.Module, Seen], Recorder] = Recorder) -> Seen:
    """Every product of one forward pass on a sample batch; `kind` makes what watches.

    Raises:
        BadInput: the model cannot be called with this sample.
    """
    compiles = compiler_loaded()
    seen, failure = _watched(model, sample, kind)
    if compiler_loaded() and not compiles:  # parts that compile themselves, such as flex_attention, hide from watching
        forget_compiled()
        seen, failure = _watched(model, sample, kind)
    if failure is None:
        return seen
    why = f"{type(failure).__name__}: {(str(failure).strip().splitlines() or [''])[0][:200]}"
    if not _runs(model, sample):
        raise BadInput(f"the model fails on the sample ({why}); correct one of them") from failure
    raise BadInput(
        f"{seen.failed or 'the model itself'}: the model runs, but not while its products are watched ({why}); write "
        "that part with ordinary operations of PyTorch, or move it out of the model"
    ) from failure


def _watched(
    model: nn.Module, sample: Any, kind: Callable[[nn.Module, Seen], Recorder]
) -> tuple[Seen, Exception | None]:
    """What was seen of one call, and the error that ended it, if one did."""
    seen = Seen()
    watching = kind(model, seen)
    try:
        with _module_stack(model, seen), torch.no_grad(), uncompiled(), watching, Kernels(watching):
            call(model, sample)
    except Exception as error:
        return seen, error
    return seen, None


def _runs(model: nn.Module, sample: Any) -> bool:
    """Whether the model can be called with this sample."""
    try:
        with torch.no_grad(), uncompiled():
            call(model, sample)
    except Exception:
        return False
    return True


def dry_run(model: nn.Module, sample: Any) -> DryRun:
    """Every product of one forward pass on a sample batch, and where samples stand in its factors.

    Samples are exchanged, and the model is run again, to see what moves. They are looked for along the first axis of
    the inputs, and where attention then mixes them, along the second (sequences first).

    Raises:
        BadInput: the model cannot be called with this sample.
    """
    first = None
    for axis in (0, 1):
        found = _along(model, sample, axis)
        if found is None:
            continue
        if all(place.known for product, place in found.places.items() if _needs_samples(product)):
            return found
        first = first or found
    if first is not None:
        return first
    seen = watch(model, sample)
    return DryRun(seen, {product: Place(FIRST, FIRST) for product in seen.products}, 0)


def _needs_samples(product: Product) -> bool:
    return product.kind in ("attention", "multihead attention") or product.role != ""


def _along(model: nn.Module, sample: Any, axis: int) -> DryRun | None:
    """The dry run if samples stand along an axis of the inputs; None if the model cannot be run with them exchanged."""
    B = batch_size(sample, axis)
    if B == 0:
        return None
    probe, B = _distinct(sample, axis, B)
    try:
        before = watch(model, probe)
        after = watch(model, _mapped(probe, axis, B, lambda t: t.roll(1, axis)))
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
        return DryRun(before, {p: _by_shape(p, B) for p in before.products}, axis)
    pairs = zip(before.products, after.products, strict=True)
    return DryRun(before, {p: _place(p, q, B) for p, q in pairs}, axis)


def _place(before: Product, after: Product, B: int) -> Place:
    """Where samples stand in the factors of a product, from two runs."""
    if before.left is None or after.left is None:
        return Place(None, None, known=False)
    if before.kind == "multihead attention":
        assert before.right is not None
        assert after.right is not None
        rows = find_batch_axis(before.right, after.right, B, prefer=1)
        return Place(rows, rows, known=rows is not None and rows.axis == 1)
    left = find_batch_axis(before.left, after.left, B)
    if before.right is None or after.right is None:
        return Place(left, None, known=left is not None or same_for_all(before.left, after.left))
    right = find_batch_axis(before.right, after.right, B)
    known = all(
        rows is not None or same_for_all(one, two)
        for rows, one, two in ((left, before.left, after.left), (right, before.right, after.right))
    )
    return Place(left, right, known and (left is not None or right is not None))


def _by_shape(product: Product, B: int) -> Place:
    """A guess for models that do other products after an exchange, such as other experts: samples first."""
    if product.left is None:
        return Place(None, None, known=False)
    fits = product.left.values.dim() > 0 and product.left.values.shape[0] == B
    return Place(FIRST if fits else None, FIRST if fits else None, known=fits)


def _mapped(sample: Any, axis: int, B: int, change: Any) -> Any:
    """The sample with every tensor that has B places along an axis changed."""
    sample = _plain(sample)

    def one(t: Tensor) -> Tensor:
        changed: Tensor = change(t) if t.dim() > axis and t.shape[axis] == B else t
        return changed

    return tree_map_only(Tensor, one, sample)


def _distinct(sample: Any, axis: int, B: int) -> tuple[Any, int]:
    """A batch of at least two samples of which no two are alike, as far as that can be had from the sample."""
    if B == 1:
        sample = _mapped(sample, axis, 1, lambda t: torch.cat([t, _reversed(t, axis)], dim=axis))
        B = 2
    generator = torch.Generator().manual_seed(0)

    def one(t: Tensor) -> Tensor:
        if not t.is_floating_point() or t.dim() < 2 or t.is_meta or not bool(t.isfinite().all()):
            return t
        if len(t.movedim(axis, 0).flatten(1).unique(dim=0)) == B:
            return t
        noise = torch.randn(t.shape, generator=generator).to(t)
        return t + noise * (t.std() if float(t.std()) > 0 else 1.0)

    return _mapped(sample, axis, B, one), B


def _reversed(t: Tensor, axis: int) -> Tensor:
    """Another sample made from a sample: the same values from behind."""
    other = [dim for dim in range(t.dim()) if dim != axis]
    return t.flip(other[-1]) if other else t


@contextmanager
def _module_stack(model: nn.Module, seen: Seen) -> Iterator[None]:
    """Keep `seen.stack` and `seen.calls`, and note the normalizations that modules do by themselves."""
    handles = []
    home = get_ident()
    for name, module in model.named_modules():
        norm = "norm" in type(module).__name__.lower() and not any(module.children())

        def enter(_module: nn.Module, _args: Any, name: str = name) -> None:
            if get_ident() != home:
                seen.elsewhere.add(name)
                return
            seen.stack.append(name)
            seen.calls[name] += 1

        def leave(_module: nn.Module, _args: Any, output: Any, norm: bool = norm) -> None:
            if get_ident() != home:
                return
            name = seen.stack.pop()
            if norm and isinstance(output, Tensor) and (not seen.digital or seen.digital[-1].module != name):
                seen.digital.append(Digital(name, "normalization", tuple(output.shape)))

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
