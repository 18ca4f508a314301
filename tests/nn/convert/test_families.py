"""Published families of models run on crossbars, and `docs/models.md` says what of each is captured.

`python -m tests.nn.convert.test_families` writes that page again.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch
from torch import nn

import ohmformer as of
from ohmformer.capture.inputs import call
from ohmformer.nn.checks.comparing import difference
from ohmformer.nn.convert.handle import crossbars
from tests.cases import quick_first
from tests.nn.hub import library
from tests.nn.zoo import FAMILIES, Family

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
HARDWARE = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 3.0)
HEAD = """# Models

This table counts what runs on crossbars, for a tiny model of each family with random weights: matrices of weights
(x W), and products Q K and P V of attention. Each expert of a mixture counts. Every model gives its original output on
exact hardware. What stays digital is listed with its module, the reason and, in parentheses, how often it occurs. For a
family that is refused without a rule, the last column gives the rule that helps: a pattern of module names. Made with
{versions} by `python -m tests.nn.convert.test_families`; a test compares.

| family | source | x W | Q K | P V | digital, and why | refused without the rule |
|---|---|---|---|---|---|---|
"""
FOOT = """
## What is seen, and what is not

A conversion records the functions that the model calls on the sample, and the kernels below them.

- Products that are found but not understood stay digital and are listed with their reason, with a warning: recurrent
  layers, linear algebra and Fourier transforms of activations (`torch.linalg`, `torch.fft`), distances
  (`torch.cdist`), bags of embeddings with weights per sample, products in place, kernels of scripted functions,
  operations that PyTorch did not define (`torch.library.custom_op`, as libraries of fused kernels have them) which take
  two activations, or an activation and a matrix, sparse or quantized weights, and matrices of activations that are
  handed to NumPy. `trace` refuses all of these unless a rule leaves them out.
- Products whose weights are computed from other parameters, products with a constant, and products that compare samples
  with one another stay digital: `convert` warns (`StaysDigital`), and `trace` counts them as digital operations and
  warns with the same reason (`LeftOut`).
- Two activations that are multiplied out of sight are refused, with the rule that keeps their module digital: inside
  `torch.vmap` and other transforms of `torch.func`, in `flex_attention` and `torch.cond`, of nested tensors, of complex
  values.
- Layers that run in another thread stay digital, and their names are listed; `trace` refuses them unless a rule leaves
  them out. A module that runs in several threads is refused unless a rule keeps it digital.
- Not seen at all, so neither captured nor listed: functions that another thread calls outside of layers; products that
  are written as sums of elementwise products (cosine similarity among them); values that the model reads as Python
  numbers (`tolist`, `item`); extensions and Triton kernels that are called directly instead of through an operation;
  and operations of others that take one activation, and multiply it by itself or by weights in an object of their own.
  Submodules compiled by TorchScript are refused.

A rule keeps digital what its pattern names: the products of that module itself. What is inside needs a pattern, too:
`{"*.mamba": None, "*.mamba.*": None}`, which hybrids of attention and state spaces need when they decode with a cache.
A pattern that ends in `*` takes all that is inside with it: `model.layers.*` names the modules of a layer, too, and
`model.layers.[0-9]` names the layers alone.

What a model writes as a sum of elementwise products only while it decodes is digital only then. RecurrentGemma and
others compute their short convolution so: one pass has the noise of its weights, a step with a cache has not. A
conversion that sees this warns (`UnstableNoise`) and names the rule that keeps the convolution digital.

## Padding, batches and caches

The noise of a token is that of its number in its sample. So a sample gives the same result alone, in a batch, beside
padding, and token by token with a cache that may be cut back. `tests/nn/checks/test_noise_check.py` compares all
families above in these ways; results differ by less than 1e-5 of their norm. Every conversion on cells with noise makes
the same comparison on rows of its sample, and warns (`UnstableNoise`) where noise differs though the original gives the
same result. Beam search works for models without an encoder, with `use_cache=False` (a cache would have to move tokens
between cells) and with a name for each beam.
These differ:

- Local attention in blocks (LongT5, Longformer, LED, Pegasus-X): a token is written once for each block that it is seen
  from, and blocks begin where the padded text begins, so its copies stand elsewhere with other padding. The conversion
  warns; give texts of one length without padding, or keep that attention digital. LongT5 and Longformer without padding
  keep their noise in any batch.
- Rotary positions that count padding: K is rotated before it is written, so the cells hold other values. RoFormer has
  no argument for positions, and its conversion warns. Decoders take them as `position_ids` (T5Gemma as
  `decoder_position_ids`), and `generate` passes them; a call with padding on the left that does not has other noise,
  without a warning. Moonshine takes none for its decoder: pad it on the right.
- Read noise of weights needs to know which inputs are padding. That is read from `attention_mask` (also with a prefix,
  as `decoder_attention_mask`) and from the padding masks of PyTorch's transformer layers. A model that names its mask
  otherwise, around layers of its own, has other read noise beside padding, without a warning; name it `attention_mask`.
- Read noise belongs to a token where the inputs of a product are the tokens of the call. It does not in convolutions
  over tokens (Mamba, Falcon Mamba, Mamba 2, LFM2), products with codes of distances (DeBERTa, XLNet), masks computed
  from values with a cache (Doge), and latent attention with a cache (MiniCPM 3, Youtu), which computes K and V of all
  former tokens again in every step. On hardware with read noise their conversions warn.
- Masks that multiply the scores behind the softmax, or stand in for one (`exp(scores) * mask`), are not followed: K and
  V then count padding as tokens. The conversion warns if the model takes an `attention_mask`. Add the mask before the
  softmax instead.

Models that number padding themselves (absolute positions and padding on the left), that mix it in (ConvBERT, Funnel),
or whose sparse blocks follow from the padded length (BigBird) give another result without any noise, too. So does
ProphetNet, whose cached steps differ from one pass. Nothing is compared there.
"""


@cache
def converted(name: str) -> tuple[nn.Module, nn.Module, str]:
    """The original, the model on crossbars, and the row of the table."""
    family = FAMILIES[name]
    torch.manual_seed(0)
    model = sharpened_model(family)
    torch.manual_seed(1)
    sample = family.sample(3)
    if family.rules:
        with pytest.raises(of.BadInput, match="rules="):
            of.convert(model, HARDWARE, sample=sample, level="noise")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = of.convert(model, HARDWARE, sample=sample, level="noise", rules=family.rules)
    return model, found, row(family, found)


def sharpened_model(family: Family) -> nn.Module:
    """A tiny model of a family; skips where its package is missing."""
    from tests.nn.zoo import sharpened

    library(family.source)
    return sharpened(family.make())


def row(family: Family, found: nn.Module) -> str:
    """One line of the table."""
    table = of.capture_table(found)
    counts = [str(table.summary()["crossbars"].get(product, 0)) for product in ("x W", "Q K", "P V")]
    digital = Counter(f"`{re.sub(r'[0-9]+', '*', row.module) or '(root)'}`: {row.reason}" for row in table.digital)
    lines = [f"{line} ({n})" if n > 1 else line for line, n in digital.items()]
    rules = ", ".join(f"`{pattern}`: None" for pattern in family.rules)
    return f"| {family.name} | {family.source} | {' | '.join(counts)} | {'; '.join(lines)} | {rules} |"


@pytest.mark.parametrize("name", quick_first(FAMILIES, 24))
@pytest.mark.filterwarnings("ignore")
def test_exact_hardware_gives_the_original_output_and_noise_changes_it(name: str) -> None:
    model, found, _ = converted(name)
    torch.manual_seed(2)
    other = FAMILIES[name].sample(2)
    state = crossbars(found).state
    with torch.no_grad(), of.samples(range(2)):
        expected = call(model, other)
        assert difference(expected, call(found, other)) > 1e-4
        state.mode = "bypass"
        assert difference(expected, call(found, other)) < 1e-4
    state.mode = "run"


def versions() -> str:
    """The packages that the table depends on, by their first numbers."""
    try:
        return " and ".join(f"{name} {version(name).split('.')[0]}" for name in ("transformers", "timm"))
    except PackageNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")


def page() -> str:
    """The text of `docs/models.md`."""
    return HEAD.format(versions=versions()) + "\n".join(converted(name)[2] for name in FAMILIES) + "\n" + FOOT


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_table_of_models_is_what_conversion_gives() -> None:
    written = PAGE.read_text(encoding="utf-8")
    if versions() not in written:
        pytest.skip(f"docs/models.md was made with other packages than {versions()}")
    for was, now in zip(written.splitlines(), page().splitlines(), strict=False):
        assert was == now, "docs/models.md is out of date; run `python -m tests.nn.convert.test_families`"
    assert written == page(), "docs/models.md is out of date; run `python -m tests.nn.convert.test_families`"


def test_the_readme_claims_no_more_families_than_there_are() -> None:
    readme = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    claimed = re.search(r"more than (\d+) model families", " ".join(readme.split()))
    assert claimed is not None
    assert int(claimed[1]) < len(FAMILIES) <= int(claimed[1]) + 15


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
