"""Labelled data: what a model is scored on, and what its hardware may be calibrated on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ohmformer.capture.inputs import leaves, size, take
from ohmformer.errors import BadInput, suggest
from ohmformer.models.load import tensor_bytes
from ohmformer.stats.intervals import Floats, Summary
from ohmformer.tasks.spec import METRICS, Metric

IGNORED = -100
"""Label of a token that is not scored."""

Inputs = Any
"""What a model takes of N samples: see `ohmformer.capture.inputs`."""


@dataclass(frozen=True)
class Reading:
    """How a model is asked, and what of its answer counts.

    Attributes:
        pooling: how token features become those of a sample: their mean, the first token's, or `auto`.
        prefill: tokens that enter a KV cache at once; None asks without a cache.
        step: tokens that enter the cache together after that.
    """

    pooling: str = "auto"
    prefill: int | None = None
    step: int = 1


@dataclass(frozen=True)
class Task:
    """A labelled test set of N samples and a separate calibration set of M.

    Inputs are a tensor with the sample as leading axis, or a mapping of such tensors by the names of the model's
    arguments (nested as deep as you like).

    Attributes:
        name: what it is called in messages.
        inputs: [N, ...] what the model takes.
        labels: [N] int64, the right classes, from 0 on (whole numbers of another type are converted); [N, T] the right
            tokens, `IGNORED` where none is scored; [P] how similar the texts of each pair are.
        calibration: [M, ...] inputs of the calibration set: never scored on.
        calibration_labels: [M, ...] int64; anything where labels are not of samples.
        metric: a key of `ohmformer.tasks.spec.METRICS`.
        pairs: [P, 2] which two samples each pair is; None for what is no pairs.
        train: inputs and classes that a probe is fitted on; none of them is in another set.
        reference: [N, D] features of the software model, for `fidelity`; see `ohmformer.tasks.metrics.against`.
        reading: how the model is asked.
        notes: what a reader of results must know.
    """

    name: str
    inputs: Inputs
    labels: Tensor
    calibration: Inputs
    calibration_labels: Tensor
    metric: str = "top1"
    pairs: Tensor | None = None
    train: tuple[Inputs, Tensor] | None = None
    reference: Tensor | None = None
    reading: Reading = Reading()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise BadInput(f"{self.name}: metric = {self.metric!r}; {suggest(str(self.metric), list(METRICS))}")
        scored = self.pairs if self.pairs is not None else self.inputs
        for what, inputs, rows, labels in (
            ("test", self.inputs, scored, self.labels),
            ("calibration", self.calibration, self.calibration, self.calibration_labels),
        ):
            if size(inputs) == 0:
                raise BadInput(f"{self.name}: the {what} set is empty; give it at least one sample")
            if not isinstance(labels, Tensor) or labels.dim() == 0:
                raise BadInput(
                    f"{self.name}: labels of the {what} set are {_kind(labels)}; give a tensor, one per input"
                )
            if size(rows) != len(labels):
                counts = f"{size(rows)} inputs but {len(labels)} labels"
                raise BadInput(f"{self.name}: the {what} set has {counts}; give one label per input")
            for path, leaf in leaves(inputs):
                if isinstance(leaf, Tensor) and leaf.is_floating_point() and not leaf.isfinite().all():
                    where = f"{what} set's {path}" if path else f"{what} set"
                    raise BadInput(f"{self.name}: the {where} holds NaN or infinity; remove or mend those samples")

        self._check_labels()
        self._check_pairs()

    def _check_labels(self) -> None:
        """Refuse labels that are none of the metric's, and make class numbers int64."""
        match self.metric:
            case "pearson" | "spearman":
                if self.labels.dim() != 1 or not _plain(self.labels) or not self.labels.isfinite().all():
                    raise BadInput(
                        f"{self.name}: labels must be one finite score for each pair; mend or remove the others"
                    )
            case "fidelity":
                return
            case "perplexity":
                self._set("labels", _whole(self.name, "labels", self.labels, 2, IGNORED))
                empty = (self.labels[:, 1:] == IGNORED).all(dim=1)
                if empty.any():
                    first = int(empty.nonzero()[0])
                    raise BadInput(f"{self.name}: no token behind the first of window {first} is scored; leave it out")
            case _:
                self._set("labels", _whole(self.name, "labels", self.labels, 1))
                self._check_train()

    def _check_train(self) -> None:
        """Refuse training samples without one class each."""
        if self.train is None:
            return
        if not isinstance(self.train, tuple) or len(self.train) != 2:
            raise BadInput(f"{self.name}: train is {_kind(self.train)}; give a pair of inputs and labels")
        inputs, labels = self.train[0], _whole(self.name, "training labels", self.train[1], 1)
        if size(inputs) != len(labels):
            counts = f"{size(inputs)} inputs but {len(labels)} labels"
            raise BadInput(f"{self.name}: the training set has {counts}; give one label per input")
        self._set("train", (inputs, labels))

    def _check_pairs(self) -> None:
        """Refuse pairs of samples that are not there."""
        if self.pairs is None:
            return
        whole = isinstance(self.pairs, Tensor) and not self.pairs.is_floating_point() and not self.pairs.is_complex()
        if not whole or self.pairs.dim() != 2 or self.pairs.shape[1] != 2:
            raise BadInput(f"{self.name}: pairs are {_kind(self.pairs)}; give whole numbers of samples [pairs, 2]")
        low, high, there = int(self.pairs.min()), int(self.pairs.max()), size(self.inputs)
        if low < 0 or high >= there:
            raise BadInput(
                f"{self.name}: pairs are of samples {low} to {high} but there are {there}; number them from 0 on"
            )

    def _set(self, name: str, value: Any) -> None:
        """Give a field of this frozen object its checked value, while it is made."""
        object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """Samples in the test set; pairs, where pairs are scored."""
        return len(self.labels)

    @property
    def scored(self) -> Metric:
        """Its metric."""
        return METRICS[self.metric]

    def first(self, limit: int | None) -> Task:
        """The task with only the first `limit` test samples, or pairs with the samples that they need.

        Raises:
            BadInput: limit is below 1, or above what there is.
        """
        if limit is None:
            return self
        if limit < 1:
            raise BadInput(f"task.limit = {limit}: must be 1 or more; leave it out to take all {len(self)} samples")
        if limit > len(self):
            raise BadInput(f"task.limit = {limit}: {self.name} has only {len(self)} samples; lower it or leave it out")
        if limit == len(self):
            return self
        pairs = None if self.pairs is None else self.pairs[:limit]
        rows = slice(0, limit if pairs is None else int(pairs.max()) + 1)
        reference = None if self.reference is None else self.reference[rows]
        return replace(
            self, inputs=take(self.inputs, rows), labels=self.labels[:limit], pairs=pairs, reference=reference
        )

    def summarise(self, scores: Floats) -> Summary:
        """What the scores [C, N] of C chips come to: mean, 95 % interval, every chip's own value.

        Raises:
            BadInput: too few scores for the metric, or none that can be told apart.
        """
        return self.scored.summarize(scores, self)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the metric and all samples (type, shape, bytes), and over how the model is asked."""
        digest = hashlib.sha256(self.metric.encode())
        if self.reading != Reading():
            digest.update(repr(self.reading).encode())
        rest = [part for part in (self.pairs, self.train) if part is not None]
        parts = (self.inputs, self.labels, self.calibration, self.calibration_labels, *rest)
        for path, leaf in (found for part in parts for found in leaves(part)):
            digest.update(path.encode())
            if isinstance(leaf, Tensor):
                digest.update(f"{leaf.dtype} {tuple(leaf.shape)}\n".encode())
                digest.update(tensor_bytes(leaf))
            else:
                digest.update(str(getattr(leaf, "digest", leaf)).encode())
        return digest.hexdigest()


def _kind(value: Any) -> str:
    return f"a tensor {list(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def _plain(labels: Tensor) -> bool:
    """True for real numbers in memory."""
    return labels.layout is torch.strided and not labels.is_complex() and not labels.is_quantized


def _whole(name: str, what: str, labels: Any, axes: int, ignored: int = 0) -> Tensor:
    """Labels of classes or tokens as whole numbers, from 0 on or `ignored`.

    Raises:
        BadInput: they are of another shape, or some are NaN, not whole, below 0 or too large.
    """
    if not isinstance(labels, Tensor) or labels.dim() != axes or not _plain(labels):
        shape = "[samples]" if axes == 1 else "[samples, tokens]"
        raise BadInput(f"{name}: {what} are {_kind(labels)}; give whole numbers {shape}")
    wrong = (labels < 0) & (labels != ignored)
    if labels.is_floating_point():
        wrong |= (labels != labels.round()) | ~(labels.abs() < 2**31)
    if wrong.any():
        place = tuple(int(index) for index in wrong.nonzero()[0])
        where = ", ".join(map(str, place))
        raise BadInput(
            f"{name}: {what}[{where}] = {labels[place].item()}; give the numbers of classes, whole and from 0 on"
        )
    return labels.to(torch.int64) if labels.is_floating_point() or labels.dtype == torch.bool else labels
