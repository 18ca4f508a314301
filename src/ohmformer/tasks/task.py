"""Labeled data: a test set that a model is scored on, and a calibration set for its hardware."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ohmformer.capture.inputs import Inputs, leaves, size, take
from ohmformer.capture.sample_batch import arrays_as_tensors
from ohmformer.errors import BadInput, check_type, given, one_line, shown, suggest
from ohmformer.models.load import tensor_bytes
from ohmformer.quantities import whole_number
from ohmformer.registry import called
from ohmformer.stats.intervals import Floats, Summary
from ohmformer.tasks.input_checks import check_inputs
from ohmformer.tasks.metric_kinds import METRICS, Metric
from ohmformer.tasks.reading import IGNORED, Reading

END_OF_NUMBERS = 2**31
"""Class and token numbers are below this."""

WITHOUT_ARITHMETIC = (torch.bool, torch.uint16, torch.uint32, torch.uint64)
"""Types of whole numbers that PyTorch does not compare or sum; they become int64."""


@dataclass(frozen=True, repr=False)
class Task:
    """A labeled test set of N samples and a separate calibration set of M samples.

    Inputs are a tensor whose leading axis is the sample, or a mapping from the names of the model's arguments to such
    tensors, at any depth of nesting. NumPy arrays become tensors.

    Attributes:
        name: name of the data in messages.
        inputs: [N, ...], inputs of the model.
        labels: for classification, class numbers from 0, [N] int64 (whole numbers of other types are converted); for
            perplexity, token numbers [N, T], `IGNORED` where a token is not scored; for correlations, the reported
            similarity of each pair [P]. `Metric.labels` says which of them a metric reads.
        calibration: [M, ...], inputs of the calibration set, which is never scored.
        calibration_labels: [M, ...] int64; any values if the metric has no labels per sample.
        metric: name of the metric, a key of `ohmformer.tasks.metric_kinds.METRICS`.
        pairs: [P, 2] int64, numbers of the two samples of each pair; None if single samples are scored.
        train: inputs and class numbers that a probe is fitted on, disjoint from the other sets.
        reference: [N, D], features of the software model, for `fidelity`; see `ohmformer.tasks.scoring.with_reference`.
        reading: how the model is called, and how its output is pooled.
        notes: remarks that belong beside the results, such as how many texts were truncated.

    Raises:
        BadInput: a set is empty or holds NaN or infinity, labels do not fit the metric or the number of samples, or
            the metric is not known.
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
    reading: Reading = field(default_factory=Reading)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Name, numbers of samples and metric; never the data."""
        counts = f"{len(self.labels)} test and {size(self.calibration)} calibration samples"
        return f"Task({self.name}: {counts}, {self.metric})"

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise BadInput(f"{self.name}: metric = {shown(self.metric)}; {suggest(str(self.metric), list(METRICS))}")
        self._check_types()
        for name in ("inputs", "labels", "calibration", "calibration_labels"):
            self._set(name, arrays_as_tensors(getattr(self, name), f"{self.name}: field {name!r}"))
        scored_rows = self.pairs if self.pairs is not None else self.inputs
        for what, inputs, rows, labels in (
            ("test", self.inputs, scored_rows, self.labels),
            ("calibration", self.calibration, self.calibration, self.calibration_labels),
        ):
            check_inputs(self.name, what, inputs)
            if isinstance(labels, Tensor) and labels.is_meta:
                raise BadInput(f"{self.name}: the {what} set is on the meta device and holds no values; give real ones")
            if not isinstance(labels, Tensor) or labels.dim() == 0:
                raise BadInput(
                    f"{self.name}: labels of the {what} set are {_describe(labels)}; give a tensor, one per input"
                )
            if size(rows) != len(labels):
                counts = f"{size(rows)} {'inputs' if rows is inputs else 'pairs'} but {len(labels)} labels"
                raise BadInput(f"{self.name}: the {what} set has {counts}; give one label per input")
        self._check_labels()
        self._check_pairs()

    def _check_types(self) -> None:
        """Refuse fields of other types than those that are declared, and convert arrays and lists to tensors."""
        check_type("Task", "name", self.name, str, "the name of the data, as text")
        check_type("Task", "reading", self.reading, Reading, "an ohmformer.Reading")
        if isinstance(self.notes, str) or not all(isinstance(note, str) for note in self.notes):
            raise BadInput(f"{self.name}: notes are {given(self.notes)}; give a tuple of texts")
        self._set("notes", tuple(self.notes))
        for name in ("pairs", "reference"):
            self._set(name, arrays_as_tensors(getattr(self, name), f"{self.name}: field {name!r}"))
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Tensor) and value.dim() == 2 and _is_dense_real(value)):
                remedy = "integers [pairs, 2], sample numbers" if name == "pairs" else "features [samples, D]"
                raise BadInput(f"{self.name}: {name} are {_describe(value)}; give {remedy}")

    def _check_labels(self) -> None:
        """Refuse labels that do not fit the metric, and convert class numbers to int64."""
        match self.metric_kind.labels:
            case "numbers":
                if self.labels.dim() != 1 or not _is_dense_real(self.labels) or not self.labels.isfinite().all():
                    what = "similarity per pair" if self.pairs is not None else "number per sample"
                    raise BadInput(f"{self.name}: labels must be one finite {what}; correct or remove the others")
            case "none":
                return
            case "tokens":
                self._set("labels", _class_numbers(self.name, "labels", self.labels, 2, IGNORED))
                empty = (self.labels[:, 1:] == IGNORED).all(dim=1)
                if empty.any():
                    first = int(empty.nonzero()[0])
                    raise BadInput(f"{self.name}: window {first} has no scored token after its first; leave it out")
            case _:
                self._set("labels", _class_numbers(self.name, "labels", self.labels, 1))
                self._check_train()

    def _check_train(self) -> None:
        """Refuse training samples that do not have one class each."""
        if self.train is None:
            return
        if not isinstance(self.train, tuple) or len(self.train) != 2:
            raise BadInput(f"{self.name}: train is {_describe(self.train)}; give a pair of inputs and labels")
        inputs, labels = map(arrays_as_tensors, self.train)
        check_inputs(self.name, "training", inputs)
        labels = _class_numbers(self.name, "training labels", labels, 1)
        if size(inputs) != len(labels):
            counts = f"{size(inputs)} inputs but {len(labels)} labels"
            raise BadInput(f"{self.name}: the training set has {counts}; give one label per input")
        self._set("train", (inputs, labels))

    def _check_pairs(self) -> None:
        """Refuse pairs that are not two valid sample numbers each."""
        if self.pairs is None:
            return
        if (
            self.pairs.is_floating_point()
            or self.pairs.dtype == torch.bool
            or self.pairs.shape[1] != 2
            or not len(self.pairs)
        ):
            raise BadInput(f"{self.name}: pairs are {_describe(self.pairs)}; give integers [pairs, 2], sample numbers")
        if self.pairs.dtype in WITHOUT_ARITHMETIC:
            self._set("pairs", self.pairs.to(torch.int64))
        low, high, count = int(self.pairs.min()), int(self.pairs.max()), size(self.inputs)
        if low < 0 or high >= count:
            raise BadInput(
                f"{self.name}: pairs refer to samples {low} to {high} but there are {count}; number them from 0"
            )

    def _set(self, name: str, value: Any) -> None:
        """Set a field of this frozen object to its checked value, during construction."""
        object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """Number of scored samples, or of pairs if pairs are scored."""
        return len(self.labels)

    @property
    def metric_kind(self) -> Metric:
        """The metric of the task."""
        return METRICS[self.metric]

    def first(self, limit: int | None) -> Task:
        """Return the task with only its first `limit` test samples, or pairs and the samples in them.

        Args:
            limit: how many test samples (or pairs) to keep; None keeps all.

        Raises:
            BadInput: limit is no whole number, below 1, or above the number of samples.
        """
        if limit is None:
            return self
        value, limit = limit, whole_number(limit)
        if limit < 1:
            raise BadInput(
                f"task.limit = {one_line(value)}: must be a whole number, 1 or more; leave it out to take all "
                f"{len(self)} samples"
            )
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

    def summarize(self, scores: Floats) -> Summary:
        """Summarize scores by the task's metric.

        Args:
            scores: [C, N], scores of N samples on C chips.

        Returns:
            The mean over chips, its 95 % interval and the value of every chip.

        Raises:
            BadInput: the scores are not finite numbers [C, N]; there are too few for the metric, or all of them are
            equal where they are correlated; or a metric of another package raises an exception or returns something
            else.
        """
        summary = called(self.metric_kind, "summarize", self._checked_scores(scores), self)
        if not isinstance(summary, Summary):
            raise BadInput(
                f"{type(self.metric_kind).__name__}.summarize: returns {given(summary)}; return an "
                "ohmformer.Summary(mean, ci95, chips)"
            )
        return summary

    def _checked_scores(self, scores: Any) -> Floats:
        """Return scores as an array [C, N] float64.

        Raises:
            BadInput: they have another shape or type, or one is not finite.
        """
        values = scores.detach().cpu().numpy() if isinstance(scores, Tensor) else np.asarray(scores)
        if values.dtype.kind not in "biuf" or values.ndim != 2 or values.shape[1] != len(self) or len(values) == 0:
            what = f"an array {list(values.shape)} of {values.dtype}" if values.ndim else given(scores)
            raise BadInput(f"{self.name}: scores are {what}; give real numbers [chips, {len(self)}], one per sample")
        if not np.isfinite(values).all():
            raise BadInput(f"{self.name}: scores hold NaN or infinity; check weights, inputs and hardware")
        return values.astype(np.float64, copy=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the metric, all samples (type, shape, bytes) and the reading."""
        digest = hashlib.sha256(self.metric.encode())
        if self.reading != Reading():
            digest.update(repr(self.reading).encode())
        optional = [part for part in (self.pairs, self.train) if part is not None]
        parts = (self.inputs, self.labels, self.calibration, self.calibration_labels, *optional)
        for path, leaf in (pair for part in parts for pair in leaves(part)):
            digest.update(path.encode())
            if isinstance(leaf, Tensor):
                digest.update(f"{leaf.dtype} {tuple(leaf.shape)}\n".encode())
                digest.update(tensor_bytes(leaf))
            else:
                digest.update(str(getattr(leaf, "digest", leaf)).encode())
        return digest.hexdigest()


def _describe(value: Any) -> str:
    return f"a tensor {list(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def _is_dense_real(labels: Tensor) -> bool:
    """True for a dense tensor of real numbers: not sparse, complex or quantized."""
    return labels.layout is torch.strided and not labels.is_complex() and not labels.is_quantized


def _class_numbers(name: str, what: str, labels: Any, axes: int, ignored: int = 0) -> Tensor:
    """Check class or token numbers, and convert floating point and bool to int64.

    Args:
        name: name of the task, for messages.
        what: what the labels are, for messages.
        labels: numbers from 0 on, or `ignored`.
        axes: how many axes the labels must have.
        ignored: a negative number that is allowed as well; 0 allows none.

    Raises:
        BadInput: the labels have another shape, or one is NaN, not whole, negative or too large.
    """
    if not isinstance(labels, Tensor) or labels.dim() != axes or not _is_dense_real(labels):
        shape = "[samples]" if axes == 1 else "[samples, tokens]"
        raise BadInput(f"{name}: {what} are {_describe(labels)}; give whole numbers {shape}")
    values = labels.double() if labels.is_floating_point() else labels.to(torch.int64)
    wrong = ((values < 0) & (values != ignored)) | ~(values < END_OF_NUMBERS)
    if labels.is_floating_point():
        wrong |= values != values.round()
    if wrong.any():
        place = tuple(int(index) for index in wrong.nonzero()[0])
        where = ", ".join(map(str, place))
        raise BadInput(f"{name}: {what}[{where}] = {labels[place].item()}; give whole numbers from 0")
    return values.to(torch.int64) if labels.is_floating_point() or labels.dtype in WITHOUT_ARITHMETIC else labels
