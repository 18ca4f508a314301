"""The accuracy of the bundled vision transformer when K and V are written into noisy cells."""

import ohmformer as of

model = of.load_model("bundled:fashion-vit")
task = of.load_task("bundled:fashion-mnist", limit=200)
hardware = of.load("clipformer_tcad_2024")

for gamma in (0.0, 3.0, 6.0):
    noisy = of.replace(hardware, "attention.array.cell.write_noise.gamma", gamma)
    converted = of.convert(model, noisy, sample=task.calibration)
    stats = of.monte_carlo(converted, lambda m: of.scores(m, task), chips=2)
    low, high = stats.ci95
    print(f"gamma {gamma:.0f}: {100 * stats.mean:.1f} %  (95 % interval {100 * low:.1f} to {100 * high:.1f})")
