"""Training under noise: the bundled model learns from 500 images, with noisy cells and ClipFormer's clip of K and V."""

import torch

import ohmformer as of

task = of.load_task("bundled:fashion-mnist", limit=100)
images, labels = task.calibration, task.calibration_labels
hardware = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 7.0)
clip = of.KVClip(alpha=2.0, beta=0.25)
model = of.convert(of.load_model("bundled:fashion-vit"), hardware, sample=images[:50], level="noise", clip=clip)


def report(when: str) -> None:
    stats = of.monte_carlo(model.eval(), lambda m: of.scores(m, task), chips=4)
    low, high = stats.ci95
    print(f"{when}: {100 * stats.mean:.1f} %  (95 % interval {100 * low:.1f} to {100 * high:.1f})")


report("before")
torch.manual_seed(0)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
with of.variation(model.train(), seed=0, gamma={"attention": (3, 7)}) as steps:
    for batch in torch.cat([torch.randperm(len(images)) for _ in range(2)]).split(50):
        loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
report(f"after {steps.step} steps under noise")
