"""Training on noise: the bundled model learns on 500 images to bear what K and V in noisy cells do to it."""

import torch

import ohmformer as of

task = of.load_task("bundled:fashion-mnist", limit=200)
images, labels = task.calibration, task.calibration_labels
hardware = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 5.0)
model = of.convert(of.load_model("bundled:fashion-vit"), hardware, sample=images[:50], level="noise")


def accuracy() -> str:
    model.eval()
    stats = of.monte_carlo(model, lambda m: of.scores(m, task), chips=3)
    return f"{100 * stats.mean:.1f} %  (95 % interval {100 * stats.ci95[0]:.1f} to {100 * stats.ci95[1]:.1f})"


print("before:", accuracy())
torch.manual_seed(0)
optimiser = torch.optim.AdamW(model.parameters(), lr=2e-4)
with of.variation(model.train(), seed=0, gamma={"attention": (0, 5)}) as steps:
    for batch in torch.cat([torch.randperm(len(images)) for _ in range(3)]).split(32):
        loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
print(f"after {steps.step} steps:", accuracy())
