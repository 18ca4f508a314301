"""What the driver of a study takes for each point, beside the evaluation: reading, keys, storing, showing again.

python benchmarks/driver.py > benchmarks/driver.md
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ohmformer.study.cost import study_costs
from ohmformer.study.evaluate_point import evaluate_point
from ohmformer.study.read_study import accuracy_half, cost_half, locate_study, make_whole, read_document
from ohmformer.study.results.document import study_results, to_json
from ohmformer.study.results.export import results
from ohmformer.study.results.spec import PointResult
from ohmformer.study.run import run_study, study_keys
from ohmformer.study.spec import Settings, Study
from ohmformer.study.store.stored_costs import stored_prices

POINTS = 5000
STUDY = """name = "driver"
model.source = "bundled:fashion-vit"
task = {{ source = "bundled:fashion-mnist", limit = 100 }}
hardware.base = "clipformer_tcad_2024"
trials.chips = 2

[sweep]
"hardware.attention.array.cell.write_noise.gamma" = {values}
"""

COSTS = """name = "driver, costs alone"
model.source = "shapes:bert-base"
hardware.base = "clipformer_tcad_2024"

[sweep]
"cost.rate" = {values}
"""

OWN = """name = "driver, own model"
model.source = "hf:{folder}/model"
task = {{ source = "imagefolder:{folder}/images", limit = 8, calibration = 4 }}
hardware.base = "clipformer_tcad_2024"
trials.chips = 2

[sweep]
"hardware.attention.array.cell.write_noise.gamma" = {values}
"""

MEANING = """Times are of one process and {points:,} points. Processor time is what the driver needs; wall time
also holds waits for the disk and for other programs. The evaluation of a new point is free here: it returns a
result that is there already. Whole commands also hold their start (Python, PyTorch, model and data)."""


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a call returns, and its seconds of processor time and of wall time."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = call()
    return found, time.process_time() - cpu, time.perf_counter() - wall


def command(*words: str) -> tuple[float, float]:
    """Seconds of processor time and of wall time of a command."""
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "ohmformer", *words], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.perf_counter() - wall


def parts(file: Path, folder: Path, points: int) -> list[tuple[str, float, float]]:
    """Name, processor time and wall time [s] of each part of a study of free evaluations."""
    rows: list[tuple[str, float, float]] = []

    def measured(name: str, call: Callable[[], Any]) -> Any:
        found, cpu, wall = timed(call)
        rows.append((name, cpu, wall))
        return found

    document = read_document(locate_study(str(file)))
    whole = measured("read and check the study", lambda: make_whole(document, folder=file.parent))
    study: Study[Settings] = measured("the accuracy half", lambda: accuracy_half(whole))
    answer: PointResult = evaluate_point(study.points[0].settings)
    study_keys(study)  # loads model and data
    evaluate = free(answer)
    measured("keys alone, part of the next two rows", lambda: study_keys(study))
    measured("new points: keys, store, read back", lambda: run_study(study, folder, evaluate=evaluate, progress=False))
    answers = measured("stored points: keys, read", lambda: run_study(study, folder, evaluate=evaluate, progress=False))
    found = measured("the results file", lambda: study_results(study, ["k"] * points, answers))
    measured("its JSON", lambda: to_json(found))
    costs = cost_half(whole)
    for name in ("costs, computed and stored", "costs, stored before"):
        with stored_prices(costs, folder) as price:
            measured(name, lambda price=price: study_costs(costs, price=price))
    measured("rows for CSV and pandas", lambda: results(folder).csv())
    return rows


NEW = (
    "read and check the study",
    "the accuracy half",
    "new points: keys, store, read back",
    "the results file",
    "its JSON",
)
"""The parts that a new point takes."""


def free(answer: PointResult) -> Callable[[Settings], PointResult]:
    """An evaluation that takes no time."""
    return lambda settings: answer


def own_model(folder: Path) -> None:
    """Save a small classifier of transformers with random weights, and images of noise in two classes."""
    import numpy as np
    from PIL import Image
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    classes = {0: "dark", 1: "light"}
    numbers = {name: number for number, name in classes.items()}
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = ViTForImageClassification(ViTConfig(**small, image_size=32, id2label=classes, label2id=numbers))
    model.save_pretrained(folder / "model")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder / "model")
    random = np.random.default_rng(0)
    for number, name in classes.items():
        (folder / "images" / name).mkdir(parents=True)
        for image in range(8):
            pixels = random.integers(127 * number, 128 + 127 * number, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{image}.png")


def own_commands(folder: Path, values: list[float]) -> list[tuple[float, float]]:
    """Seconds of `accuracy`, all stored, and of `accuracy` again, of a study of a model of one's own."""
    own_model(folder)
    file, out = folder / "own.toml", folder / "own"
    file.write_text(OWN.format(folder=folder, values=values))
    study = accuracy_half(make_whole(read_document(file), folder=folder))
    run_study(study, out, evaluate=free(evaluate_point(study.points[0].settings)), progress=False)
    return [command("accuracy", str(file), "--out", str(out), "--workers", "1") for _ in range(2)]


def main(points: int = POINTS) -> None:
    """Print the page."""
    with tempfile.TemporaryDirectory() as name:
        file, folder = Path(name) / "study.toml", Path(name) / "out"
        values = [round(5 * point / points, 6) for point in range(points)]
        file.write_text(STUDY.format(values=values))
        rows = [(part, cpu / points, wall / points) for part, cpu, wall in parts(file, folder, points)]
        accuracy = ("accuracy", str(file), "--out", str(folder), "--workers", "1")
        first, again = command(*accuracy), command(*accuracy)
        exported = command("export", str(folder), "-o", str(Path(name) / "out.csv"))
        file, folder = Path(name) / "costs.toml", Path(name) / "costs"
        file.write_text(COSTS.format(values=[f"{1 + point / points} Hz" for point in range(points)]))
        own = own_commands(Path(name), values)
        priced = [command(verb, str(file), "--out", str(folder)) for verb in ("run", "run", "cost", "cost")]
    print("# Work of the driver\n")
    print(MEANING.format(points=points))
    print("\n| part | processor time per point | wall time per point |\n|---|---|---|")
    for part, cpu, wall in rows:
        print(f"| {part} | {cpu * 1e3:.2f} ms | {wall * 1e3:.2f} ms |")
    print(f"\nA new point takes {sum(cpu for part, cpu, _ in rows if part in NEW) * 1e3:.1f} ms of processor time.")
    print("\n| command | processor time | wall time |\n|---|---|---|")
    for title, (cpu, wall) in (
        ("`accuracy`, all stored by calls from Python", first),
        ("`accuracy` again, unchanged", again),
        ("`accuracy` of a Hugging Face model in a folder of one's own, all stored by calls from Python", own[0]),
        ("the same again, unchanged", own[1]),
        ("`export` to CSV", exported),
        ("`run` of costs alone, all computed", priced[0]),
        ("`run` of costs alone again, unchanged", priced[1]),
        ("`cost --out` of the same, all stored by `run`", priced[2]),
        ("`cost --out` again, unchanged", priced[3]),
    ):
        print(f"| {title} | {cpu:.1f} s | {wall:.1f} s |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
