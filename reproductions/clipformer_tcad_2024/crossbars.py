"""Variation-aware training: the model that is trained stands on noisy crossbars, its parameters stay clean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from ohmformer import schema
from ohmformer.capture.inputs import Inputs, size
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import KVClip
from ohmformer.nn.calibration.calibrate import calibrate
from ohmformer.nn.convert.convert import convert
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.variation import Variation, variation
from ohmformer.study.results.key import code_digest, digest

LEVEL = "noise"


@dataclass(frozen=True)
class OnCrossbars:
    """What a model is trained on.

    Attributes:
        name: of the hardware, as given.
        hardware: whose noise is drawn anew in every step.
        gamma: lowest and highest factor of the write noise of K and V; None takes the hardware's own.
        clip: ClipFormer's clip of K and V.
        kv: "auto" where K and V are conditioned as calibration chooses for the first weights, at the mean gamma.
        option: which names the hardware on the command line.
    """

    name: str
    hardware: Accelerator
    gamma: tuple[float, float] | None = None
    clip: KVClip | None = None
    kv: str | None = None
    option: str = "--hardware"

    @classmethod
    def of(cls, hardware: str | None, gamma: str | None, clip: str | None, kv: str | None = None) -> OnCrossbars | None:
        """As the options --hardware, --gamma A[:B], --clip ALPHA,BETA and --kv auto ask for; None without hardware.

        Raises:
            BadInput: one of them cannot be read, or there is no hardware that it could speak of.
        """
        if hardware is None:
            for option, value in (("gamma", gamma), ("clip", clip), ("kv", kv)):
                if value is not None:
                    raise BadInput(f"--{option} {value}: is for training on crossbars; name them with --hardware")
            return None
        if kv and clip:
            raise BadInput(f"--kv {kv}: chooses clips too; leave --clip out")
        try:
            found = schema.load(Accelerator, hardware)
        except BadInput as error:
            raise BadInput(f"--hardware {error}") from error
        return cls.on(found, hardware, gamma, kv, _clip(clip))

    @classmethod
    def on(
        cls, hardware: Accelerator, name: str, gamma: str | None, kv: str | None, clip: KVClip | None = None,
        option: str = "--hardware",
    ) -> OnCrossbars:  # fmt: skip
        """Hardware that was read already.

        Raises:
            BadInput: --gamma or --kv cannot be read.
        """
        if kv not in (None, "auto"):
            raise BadInput(f"--kv {kv}: must be auto; leave it out to write K and V as they come")
        return cls(name, hardware, _gamma(gamma), clip, kv, option)

    def identity(self) -> dict[str, Any]:
        """What decides the noise, and with it the weights that come out."""
        return {
            "hardware": self.name,
            "gamma": self.gamma and list(self.gamma),
            "clip": self.clip and self.clip.canonical(),
            "kv": self.kv,
            "level": LEVEL,
            "specification": digest(self.hardware.physical()),
            "code": code_digest(),
        }

    def put(self, model: nn.Module, sample: Inputs, seed: int) -> tuple[nn.Module, Variation]:
        """The model on the hardware, around the same parameters, and what draws its noise from this seed.

        Args:
            model: what is trained.
            sample: inputs that find the ranges of the crossbars.
            seed: root of the noise.

        Raises:
            BadInput: the hardware has no crossbars, or K and V on it no such noise, or they cannot be clipped so.
        """
        converted = convert(model, self._usual(), sample=sample, level=LEVEL, clip=self.clip, seed=seed)
        if not crossbars(converted).operands:
            raise BadInput(
                f"{self.option} {self.name}: has no crossbars for what this model multiplies; name another one"
            )
        if self.kv:
            training = converted.training
            calibrate(converted.eval(), sample, batch=size(sample), seed=seed)
            converted.train(training)
        gamma = None if self.gamma is None else {"attention": self.gamma}
        try:
            return converted, variation(converted, seed=seed, gamma=gamma)
        except BadInput as error:
            why = str(error).removeprefix("variation: gamma")
            raise BadInput(f"--gamma{why} (here: leave --gamma out, or name another {self.option})") from error

    def _usual(self) -> Accelerator:
        """The hardware at the noise that calibration is for."""
        if not self.kv or self.gamma is None:
            return self.hardware
        try:
            mean = sum(self.gamma) / 2
            return schema.replace(self.hardware, "attention.array.cell.write_noise.gamma", mean)
        except BadInput as error:
            raise BadInput(f"--gamma of {self.name}: {error}") from error


def _gamma(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    ends = _numbers(text, ":")
    if len(ends) not in (1, 2) or not 0 <= ends[0] <= ends[-1] < float("inf"):
        raise BadInput(f"--gamma {text}: must be a number, 0 or more, or LOW:HIGH such as 2:6; correct it")
    return ends[0], ends[-1]


def _clip(text: str | None) -> KVClip | None:
    if text is None:
        return None
    numbers = _numbers(text, ",")
    if len(numbers) != 2:
        raise BadInput(f"--clip {text}: must be two numbers, ALPHA,BETA, such as 2,0.25; correct it")
    return schema.validate(KVClip, {"alpha": numbers[0], "beta": numbers[1]}, where="", top="--clip", in_file=False)


def _numbers(text: str, mark: str) -> list[float]:
    """Empty where one of them is none."""
    try:
        return [float(part) for part in text.split(mark)]
    except ValueError:
        return []
