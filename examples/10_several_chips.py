"""A decoded token on several chips: GPT-2 on PUMA's nodes, Llama 2 70B on A100s. Their area, and what links take."""

import ohmformer as of

puma, gpus = of.load("puma_asplos_2019_nodes"), of.load("a100_sxm_80gb_x8")
tensor = of.replace(puma, "system.partition", "tensor")
systems = {
    ("gpt2", "one chip"): of.load("puma_asplos_2019"),
    ("gpt2", "pipeline of nodes"): puma,
    ("gpt2", "4 nodes share each layer"): of.replace(tensor, "system.degree", 4),
    ("llama-2-70b", "2 GPUs share each layer"): of.replace(gpus, "system.degree", 2),
    ("llama-2-70b", "8 GPUs share each layer"): gpus,
}
print(f"{'model':12} {'system':24} {'chips':>5} {'largest':>9} {'latency':>9} {'energy':>10} {'of links':>10}")
for (model, name), hardware in systems.items():
    run = of.simulate(of.shapes(model, phase="decode", context=1000), hardware)
    link = run.energy_by("component").get("link", 0.0)
    sizes = f"{run.placement.chips:5} {run.placement.largest_chip * 1e6:5.0f} mm²"
    print(f"{model:12} {name:24} {sizes} {run.latency * 1e6:6.0f} us {run.energy * 1e3:7.2f} mJ {link * 1e3:7.3f} mJ")
