"""Images are prepared as the class does that a folder of Hugging Face names; what cannot be is one line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ohmformer.errors import BadInput
from ohmformer.models.image_processors import image_reader, read_settings
from ohmformer.models.images import ImagePreparation, ImageReader
from ohmformer.models.load import load_model
from ohmformer.models.preprocessing import preparation
from ohmformer.models.torchvision_stub import installed, works
from ohmformer.tasks.load import load_task
from tests.tasks import tiny

transformers = pytest.importorskip("transformers")
auto = pytest.importorskip("transformers.models.auto.image_processing_auto")
modeling = pytest.importorskip("transformers.models.auto.modeling_auto")

pytestmark = pytest.mark.skipif(
    installed() and not works(), reason="transformers needs a torchvision that works, or none"
)

CLASSES = sorted(
    {
        auto.IMAGE_PROCESSOR_MAPPING_NAMES[kind]["pil"]
        for kind in modeling.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
        if "pil" in (auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(kind) or {})
    }
)
OTHER_THAN_PIXELS = {
    "ImageGPTImageProcessorPil", "Siglip2ImageProcessorPil", "Gemma3ImageProcessorPil", "TimmWrapperImageProcessor",
}  # fmt: skip
SMALLER = {
    "DonutImageProcessorPil": {"size": {"height": 100, "width": 80}},
    "TextNetImageProcessorPil": {"size": {"shortest_edge": 64}},
}
SIZES = [(30, 41), (64, 64), (53, 23), (20, 79)]


def reader(content: dict[str, Any], kind: str = "deit") -> ImageReader:
    file = Path("somewhere") / "preprocessor_config.json"
    config = SimpleNamespace(model_type=kind, num_channels=3)
    return image_reader(transformers, file, read_settings(file, content), config)


@pytest.mark.parametrize("name", sorted(set(CLASSES) - OTHER_THAN_PIXELS))
def test_every_class_prepares_as_transformers_does(tmp_path: Path, name: str) -> None:
    processor = getattr(transformers, name)(**SMALLER.get(name, {}))
    processor.save_pretrained(tmp_path)
    found = reader(json.loads((tmp_path / "preprocessor_config.json").read_text()))
    for number, size in enumerate(SIZES):
        file = tmp_path / f"{number}.png"
        tiny.image(file, number, size)
        with Image.open(file) as opened:
            expected = np.asarray(processor(opened.convert("RGB"), return_tensors="np")["pixel_values"][0])
        said = found.inputs(found.pixels(file)[None])[0].numpy()
        assert said.shape == expected.shape
        assert np.abs(said - expected).max() < 1e-5, size
        if size[0] == size[1]:
            assert found.shape == expected.shape


@pytest.mark.parametrize("name", sorted(set(CLASSES) & OTHER_THAN_PIXELS))
def test_classes_that_make_something_else_than_pixels_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match=f"image_processor_type = '{name}': .*choose another model"):
        reader({"image_processor_type": name, "clusters": [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]})


def test_mobilevit_takes_blue_first_and_no_normalization(tmp_path: Path) -> None:
    Image.new("RGB", (40, 50), (196, 0, 0)).save(tmp_path / "red.png")
    found = reader({"image_processor_type": "MobileViTImageProcessor"})
    said = found.inputs(found.pixels(tmp_path / "red.png")[None])[0]
    assert said[:, 100, 100].tolist() == pytest.approx([0, 0, 196 / 255], abs=1e-6)


@pytest.mark.parametrize("name", ["ViTImageProcessor", "ViTImageProcessorFast", "ViTFeatureExtractor"])
def test_older_and_faster_names_mean_the_same_class(name: str) -> None:
    assert reader({"image_processor_type": name}) == reader({"feature_extractor_type": name}) == reader({}, "vit")


def test_null_is_as_if_left_out() -> None:
    null = {"size": None, "crop_size": None, "image_mean": None, "image_std": None, "resample": None, "do_resize": None,
            "rescale_factor": None}  # fmt: skip
    assert reader(null) == reader({})
    assert isinstance(reader({}), ImagePreparation)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", {"a": 1}), ("size", {}), ("size", {"height": 3}), ("size", {"shortest_edge": 10**30}), ("size", [1]),
        ("size", {"shortest_edge": 0}), ("size", {"shortest_edge": "20"}), ("size", True), ("size", "big"),
        ("crop_size", {"width": 2}), ("crop_size", {"height": 10**5, "width": 10**5}), ("image_std", ["0.3", "1", "1"]),
        ("image_std", [0, 1, 1]), ("image_std", "x"), ("image_mean", [float("nan")] * 3), ("image_mean", [1, 2]),
        ("resample", 99), ("resample", "bicubic"), ("rescale_factor", 0), ("rescale_factor", "a"), ("do_resize", "yes"),
        ("crop_pct", 0), ("image_processor_type", 5),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_one_line(key: str, value: object) -> None:
    with pytest.raises(BadInput, match=rf"preprocessor_config\.json: {key} = .*; correct it") as caught:
        reader({key: value})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        ({"image_processor_type": "Foo"}, "deit", "'Foo': is not a class of transformers"),
        ({"image_processor_type": "AutoModel"}, "deit", "'AutoModel': is not a class of transformers"),
        ({"image_processor_type": "Evil", "auto_map": {"AutoImageProcessor": "x.Evil"}}, "deit", "is not a class"),
        ({"size": {"longest_edge": 32}}, "deit", "Size must contain"),
        ({}, "dinov2_with_registers", "image_processor_type: is missing"),
    ],
)
def test_classes_that_cannot_be_used_are_one_line(content: dict[str, Any], kind: str, said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        reader(content, kind)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "{", "", "null", '{"size":' + "[" * 5000, '{"size": {"a": 1}}'])
def test_a_model_loads_and_its_task_says_what_is_wrong_with_the_file(tmp_path: Path, text: str) -> None:
    folder = tiny.deit(tmp_path / "d")
    (folder / "preprocessor_config.json").write_text(text)
    model = load_model(f"hf:{folder}")
    assert preparation(model).images is None
    tiny.photographs(tmp_path / "p", 2)
    with pytest.raises(BadInput, match=r"task\.source = .*preprocessor_config\.json: ") as caught:
        load_task(f"imagefolder:{tmp_path / 'p'}", model=model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("longest", [30, 100, 1000])
def test_two_bounds_of_a_size_both_hold_for_long_images(tmp_path: Path, longest: int) -> None:
    size = {"shortest_edge": 20, "longest_edge": longest}
    content = {"image_processor_type": "DetrImageProcessor", "size": size, "do_pad": False}
    theirs = transformers.DetrImageProcessorPil(size=size, do_pad=False)
    found = reader(content)
    for height, width in ((24, 24), (10, 150)):
        file = tmp_path / f"{height}.png"
        tiny.image(file, 1, (height, width))
        expected = np.asarray(theirs(Image.open(file).convert("RGB"), return_tensors="np")["pixel_values"][0])
        assert np.allclose(found.inputs(found.pixels(file)[None])[0].numpy(), expected, atol=1e-4)


def test_other_processors_answer_for_whole_folders(tmp_path: Path) -> None:
    folder = tiny.deit(tmp_path / "d")
    settings = {"image_processor_type": "LevitImageProcessor", "size": {"shortest_edge": 16}, "crop_size": 16}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    model = load_model(f"hf:{folder}")
    task = load_task(f"imagefolder:{tiny.photographs(tmp_path / 'p', 4)}", model=model)
    assert task.inputs[:3].shape == (3, 3, 16, 16)
    again = load_task(f"imagefolder:{tmp_path / 'p'}", model=load_model(f"hf:{folder}"))
    assert task.digest == again.digest
    settings["image_mean"] = 0.1
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    other = load_task(f"imagefolder:{tmp_path / 'p'}", model=load_model(f"hf:{folder}"))
    assert other.digest != task.digest
