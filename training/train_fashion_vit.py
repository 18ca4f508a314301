"""Train the bundled vision transformer on Fashion-MNIST and write it, with its data subsets, as package data.

    python training/train_fashion_vit.py --data DIR [--out DIR] [--epochs 18]

DIR holds the four IDX files of Fashion-MNIST (`train-images-idx3-ubyte.gz` ...; on Debian they come with the package
dataset-fashion-mnist, in /usr/share/datasets/fashion-mnist). One core needs about 35 minutes. A checkpoint is written
after every epoch and a stopped run goes on from it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor

from ohmformer.models.bundled_vit import VisionTransformer

SEED = 2024
CALIBRATION = 500  # the last images of the training file: never trained on
TEST = 2000  # the first images of the test file
ARCHITECTURE = {
    "size": 28, "patch": 4, "channels": 1, "width": 64, "depth": 8, "heads": 2, "mlp_ratio": 2.0, "classes": 10,
}  # fmt: skip


def read_idx(folder: Path, stem: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 28, 28] and labels [N], uint8, from a pair of gzipped IDX files."""
    images = gzip.decompress((folder / f"{stem}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{stem}-labels-idx1-ubyte.gz").read_bytes())
    return (
        np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28),
        np.frombuffer(labels, np.uint8, offset=8),
    )


def normalize(images: np.ndarray) -> Tensor:
    """uint8 images [N, 28, 28] to float [N, 1, 28, 28] in [-1, 1]."""
    return torch.from_numpy(images.copy()).float().unsqueeze(1) / 127.5 - 1.0


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random horizontal flip and a shift of up to two pixels, per image."""
    flip = torch.rand(len(x), generator=generator) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(-1), x)
    padded = F.pad(x, (2, 2, 2, 2), value=-1.0)
    dy, dx = torch.randint(0, 5, (2, len(x)), generator=generator)
    rows = (dy[:, None] + torch.arange(28))[:, None, :, None].expand(-1, 1, -1, 32)
    cols = (dx[:, None] + torch.arange(28))[:, None, None, :].expand(-1, 1, 28, -1)
    return padded.gather(2, rows).gather(3, cols)


def accuracy(model: torch.nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    with torch.inference_mode():
        hits = sum(int((model(a).argmax(1) == b).sum()) for a, b in zip(x.split(500), y.split(500), strict=True))
    return hits / len(x)


def learning_rate(step: int, total: int, warmup: int, peak: float) -> float:
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def train_epoch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    epoch: int,
    args: argparse.Namespace,
) -> None:
    model.train()
    generator = torch.Generator().manual_seed(SEED + epoch)
    order = torch.randperm(len(x), generator=generator)
    steps = len(x) // args.batch
    for i in range(steps):
        index = order[i * args.batch : (i + 1) * args.batch]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(epoch * steps + i, args.epochs * steps, steps, args.lr)
        loss = F.cross_entropy(model(augment(x[index], generator)), y[index], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def write_package_data(out: Path, model: torch.nn.Module, data: Path, record: dict[str, object]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    metadata = {"architecture": json.dumps(ARCHITECTURE)}
    (out / "fashion_vit.safetensors").write_bytes(save(weights, metadata=metadata))
    images, labels = read_idx(data, "train")
    kept = {"images": images[-CALIBRATION:], "labels": labels[-CALIBRATION:]}
    np.savez_compressed(out / "fashion_mnist_calibration.npz", **kept)
    images, labels = read_idx(data, "t10k")
    np.savez_compressed(out / "fashion_mnist_test.npz", images=images[:TEST], labels=labels[:TEST])
    (out / "fashion_vit.json").write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("src/ohmformer/library/bundled"))
    parser.add_argument("--checkpoint", type=Path, default=Path("fashion_vit.checkpoint.pt"))
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)

    images, labels = (torch.from_numpy(a.copy()) for a in read_idx(args.data, "train"))
    x, y = normalize(images.numpy()[:-CALIBRATION]), labels[:-CALIBRATION].long()
    test_images, test_labels = read_idx(args.data, "t10k")
    xt, yt = normalize(test_images), torch.from_numpy(test_labels.copy()).long()

    model = VisionTransformer(**ARCHITECTURE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.05)
    first = 0
    if args.checkpoint.exists():
        state = torch.load(args.checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"] + 1
    for epoch in range(first, args.epochs):
        start = time.time()
        train_epoch(model, optimizer, x, y, epoch, args)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}, args.checkpoint)
        seconds = time.time() - start
        print(f"epoch {epoch + 1}/{args.epochs}: test {accuracy(model, xt, yt):.4f}, {seconds:.0f} s", flush=True)
    record = {
        "seed": SEED,
        "epochs": args.epochs,
        "batch": args.batch,
        "peak_lr": args.lr,
        "torch": torch.__version__,
        "test_accuracy_10000": accuracy(model, xt, yt),
        "test_accuracy_subset": accuracy(model, xt[:TEST], yt[:TEST]),
    }
    write_package_data(args.out, model, args.data, record)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
