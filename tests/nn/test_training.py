"""Converted models in the hands of ordinary code: training loops, checkpoints, the compiler, half precision."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ohmformer as of
from tests.nn.models import Checkpointed, Decoder, Encoder, vit

HARDWARE = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 3.0)
IMAGES = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(0, 20, (3, 6), generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore::ohmformer.GrownWeights")
@pytest.mark.slow
def test_a_plain_loop_trains_a_converted_model() -> None:
    converted = of.convert(vit(), HARDWARE, sample=IMAGES).train()
    labels = torch.tensor([0, 1, 2, 3])
    optimizer = torch.optim.AdamW(converted.parameters(), lr=1e-2)
    losses = []
    for step in range(40):
        with of.samples(range(4 * step, 4 * step + 4)):
            loss = nn.functional.cross_entropy(converted(IMAGES), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def gradients(reentrant: bool | None, *, inside: bool) -> Tensor:
    converted = of.convert(Checkpointed(reentrant).eval(), HARDWARE, sample=TOKENS).train()
    with of.samples(["a", "b", "c"]):
        loss = converted(TOKENS).square().mean()
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    return torch.cat([p.grad.flatten() for p in converted.parameters() if p.grad is not None])


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # the self-check runs without gradients
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.slow
def test_recomputed_layers_draw_the_same_noise(reentrant: bool, inside: bool) -> None:
    """Backward inside `with samples(...)` or after it: the names of the forward pass are remembered."""
    assert torch.equal(gradients(reentrant, inside=inside), gradients(None, inside=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("make", "x"), [(vit, IMAGES), (Decoder, TOKENS)])
def test_other_types_of_numbers(make: Callable[[], nn.Module], x: Tensor, dtype: torch.dtype) -> None:
    x = x.to(dtype) if x.is_floating_point() else x
    converted = of.convert(make().eval().to(dtype), HARDWARE, sample=x)
    with torch.no_grad(), of.samples(range(len(x))):
        y = converted(x)
    assert y.dtype == dtype
    assert bool(y.isfinite().all())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the compiler needs a C++ compiler of its own there")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize(("make", "x"), [(vit, IMAGES), (Decoder, TOKENS), (Encoder, torch.randn(3, 5, 24))])
def test_compiled_models_compute_the_same(make: Callable[[], nn.Module], x: Tensor, backend: str) -> None:
    torch._dynamo.reset()
    converted = of.convert(make().eval(), HARDWARE, sample=x)
    compiled = torch.compile(converted, backend=backend)
    with torch.no_grad(), of.samples(range(len(x))):
        assert torch.allclose(compiled(x), converted(x), atol=1e-5)
    with of.samples(range(len(x))):
        compiled(x).square().mean().backward()
    assert all(p.grad is not None for p in converted.parameters())


@pytest.mark.filterwarnings("ignore::ohmformer.streams.UnnamedSamples")  # the Trainer names no samples
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")
@pytest.mark.slow
def test_the_trainer_of_hugging_face_trains_a_converted_model(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, num_labels=2
    )
    torch.manual_seed(0)
    ids = torch.randint(2, 50, (32, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    rows = [{"input_ids": i, "attention_mask": m, "labels": i[0] % 2} for i, m in zip(ids, mask, strict=True)]
    model = transformers.BertForSequenceClassification(config).eval()
    converted = of.convert(model, HARDWARE, sample={"input_ids": ids[:4], "attention_mask": mask[:4]}, level="noise")
    before = {name: p.detach().clone() for name, p in converted.named_parameters()}
    options = {"per_device_train_batch_size": 8, "max_steps": 4, "report_to": [], "use_cpu": True}
    arguments = transformers.TrainingArguments(
        str(tmp_path), learning_rate=1e-3, disable_tqdm=True, save_steps=2, **options
    )
    trainer = transformers.Trainer(model=converted, args=arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    assert any(not torch.equal(p, before[name]) for name, p in converted.named_parameters())
    loss = trainer.evaluate()["eval_loss"]
    assert 0 < loss < 10
    again = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "checkpoint-4")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), converted.parameters(), strict=True))


def test_training_in_mixed_precision() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), of.samples(range(4)):
        converted = of.convert(vit(), HARDWARE, sample=IMAGES).train()
        loss = nn.functional.cross_entropy(converted(IMAGES), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in converted.parameters())


def test_conditioning_in_mixed_precision() -> None:
    """Conditioned tokens are written as in full precision: half precision cannot tell the entries of a table apart."""
    converted = of.convert(vit(), HARDWARE, sample=IMAGES, level="noise").train()
    of.set_kv(converted, of.Conditioning(mean=True, basis="balanced", scale="token", radix=1, unbiased=True))
    with torch.autocast("cpu", dtype=torch.bfloat16), of.samples(range(4)):
        loss = nn.functional.cross_entropy(converted(IMAGES), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in converted.parameters())
