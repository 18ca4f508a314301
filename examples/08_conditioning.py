"""Write noise that costs a model ten points of accuracy, and how much of that conditioning K and V gives back."""

import ohmformer as of

model = of.load_model("bundled:fashion-vit")
task = of.load_task("bundled:fashion-mnist", limit=100)
images = task.calibration[:100]  # never images that are scored; no labels are needed
hardware = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 7.0)
converted = of.convert(model, hardware, sample=images, level="noise")


def report(what: str) -> None:
    stats = of.monte_carlo(converted, lambda m: of.scores(m, task), chips=3)
    low, high = stats.ci95
    print(f"{what}: {100 * stats.mean:.1f} %  (95 % interval {100 * low:.1f} to {100 * high:.1f})")


print(f"software: {100 * of.scores(model, task).mean():.1f} %")
report("no mitigation")
chosen = of.calibrate(converted, images)
report(f"{chosen.recipe}, chosen among {', '.join(chosen.losses)}")

# The same can be set by hand, for all layers alike.
of.set_kv(converted, of.Conditioning(mean=True, basis="hadamard", scale="token"))
report("mean removed, rotated, one range per token")
