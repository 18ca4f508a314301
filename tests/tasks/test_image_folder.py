"""Image folders: classes, splits, and what is wrong with them in one line."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from pathlib import Path

import pytest
import torch
from torch import nn

from ohmformer.errors import BadInput
from ohmformer.models.images import ImagePreparation, Images
from ohmformer.models.preprocessing import Preparation, remember
from ohmformer.tasks.image_folder import read_labels
from ohmformer.tasks.load import load_task
from ohmformer.tasks.probe import probed
from ohmformer.tasks.scoring import scores
from ohmformer.tasks.task import Task
from tests.tasks import tiny

PREPARATION = ImagePreparation(resize=20, crop=(16, 16))


class Brightness(nn.Module):
    """Says by mean brightness: dark 0, noisy 2, light 1, and then classes that nothing is."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(dim=(1, 2, 3))
        found = torch.where(mean < -0.4, 0, torch.where(mean > 0.4, 1, 2))
        return nn.functional.one_hot(found, self.classes).float() + torch.linspace(0, 0.01, self.classes)


def model(classes: int = 3, names: tuple[str, ...] = ()) -> nn.Module:
    found = Brightness(classes).eval()
    return remember(found, Preparation(images=PREPARATION, classes=classes, names=names))


def source(folder: Path) -> str:
    return f"imagefolder:{folder}"


def test_folders_are_classes_in_sorted_order(tmp_path: Path) -> None:
    folder = tiny.photographs(tmp_path)
    task = load_task(source(folder), model=model())
    assert len(task) == 22, "a tenth of 24 images calibrates"
    assert len(task.calibration_labels) == 2
    assert task.inputs[0:3].shape == (3, 3, 16, 16)
    assert scores(model(), task, 5).mean() == 1.0
    top5 = load_task(source(folder), model=model(9), metric="top5", labels=str(labels(tmp_path, 9)))
    assert scores(model(9), top5).mean() == 1.0


def labels(folder: Path, count: int) -> Path:
    """A list of classes, with words behind the names as ImageNet's lists have them."""
    file = folder / "labels.txt"
    names = ["dark", "light", "noisy", *(f"other{n}" for n in range(3, count))]
    file.write_text("\n".join(f"{name} in words" for name in names) + "\n")
    return file


def test_splits_depend_on_content_and_never_overlap(tmp_path: Path) -> None:
    tasks = [load_task(source(tiny.photographs(tmp_path / name)), model=model(), calibration=6) for name in "ab"]
    first, second = ([file.name for file in task.inputs.files] for task in tasks)
    assert first == second
    test, held = set(tasks[0].inputs.files), set(tasks[0].calibration.files)
    assert len(test) == 18
    assert len(held) == 6
    assert not test & held
    assert len({file.parent.name for file in tasks[0].inputs.files[:8]}) == 3, "a first part holds all classes"


def test_given_splits_are_used_as_they_are(tmp_path: Path) -> None:
    tiny.photographs(tmp_path / "train", each=4)
    tiny.photographs(tmp_path / "val", each=3)
    task = load_task(source(tmp_path), model=model(), calibration=5)
    assert len(task) == 9
    assert {file.parts[-3] for file in task.calibration.files} == {"train"}
    assert {file.parts[-3] for file in task.inputs.files} == {"val"}


def test_a_limit_reads_no_more_than_it_needs(tmp_path: Path) -> None:
    task = load_task(source(tiny.photographs(tmp_path)), 4, model=model())
    assert len(task) == len(task.inputs.files) == 4
    whole = load_task(source(tmp_path), model=model())
    assert whole.inputs.files[:4] == task.inputs.files
    assert whole.digest != task.digest


def test_a_probe_learns_classes_that_the_model_does_not_know(tmp_path: Path) -> None:
    task = load_task(source(tiny.photographs(tmp_path)), model=model(7), probe=True)
    assert task.train is not None
    found = probed(model(7), task)
    assert scores(found, task).mean() > 0.9
    again = probed(model(7), task)
    assert torch.equal(found.probe.weight, again.probe.weight)


def classes_of(task: Task) -> dict[str, int]:
    pairs = zip(task.inputs.files, task.labels.tolist(), strict=True)
    trained = zip(task.train[0].files, task.train[1].tolist(), strict=True) if task.train else ()
    found = {(unicodedata.normalize("NFC", file.parent.name), label) for file, label in (*pairs, *trained)}
    assert len(found) == len(dict(found)), "a class has one number"
    return dict(found)


def test_a_class_has_one_number_in_both_splits(tmp_path: Path) -> None:
    """Each split used to number its own folders, so that a class that one of them lacks shifted the others."""
    tiny.photographs(tmp_path / "train", each=6)
    tiny.photographs(tmp_path / "val", each=3)
    shutil.rmtree(tmp_path / "val" / "dark")
    task = load_task(source(tmp_path), model=model(7), probe=True)
    assert classes_of(task) == {"dark": 0, "light": 1, "noisy": 2}
    assert len(load_task(source(tmp_path), model=model(3))) == 6
    (tmp_path / "val" / "light").rename(tmp_path / "val" / "other")
    with pytest.raises(BadInput, match="has 4 class folders"):
        load_task(source(tmp_path), model=model(3))


def test_accents_of_one_or_two_characters_name_the_same_class(tmp_path: Path) -> None:
    names = {"train": "e\u0301t\u00e9", "val": "\u00e9te\u0301"}
    for split, name in names.items():
        tiny.photographs(tmp_path / split, each=4)
        (tmp_path / split / "dark").rename(tmp_path / split / name)
    task = load_task(source(tmp_path), model=model(7), probe=True)
    assert classes_of(task) == {"\u00e9t\u00e9": 0, "light": 1, "noisy": 2}, "sorted as in the training set"
    file = tmp_path / "labels.json"
    file.write_text(json.dumps({"\u00e9t\u00e9": 5, "light": 1, "noisy": 2}))
    assert classes_of(load_task(source(tmp_path), model=model(7), labels=str(file)))["\u00e9t\u00e9"] == 5


def test_names_of_files_that_are_no_text_are_read(tmp_path: Path) -> None:
    tiny.photographs(tmp_path)
    try:
        (tmp_path / "dark" / "0.png").rename(tmp_path / "dark" / os.fsdecode(b"\xff.png"))
    except OSError:
        pytest.skip("the file system takes text alone")
    task = load_task(source(tmp_path), model=model())
    assert len(task) == 22
    assert task.digest


def test_fidelity_needs_no_classes(tmp_path: Path) -> None:
    for number in range(12):
        tiny.image(tmp_path / f"{number}.png", number)
    task = load_task(source(tmp_path), model=model(), metric="fidelity")
    assert scores(model(), task) == pytest.approx(1.0)


def test_the_models_own_names_number_the_folders(tmp_path: Path) -> None:
    named = model(4, names=("noisy", "fog", "light", "dark"))
    task = load_task(source(tiny.photographs(tmp_path)), model=named)
    assert {file.parent.name: int(label) for file, label in zip(task.inputs.files, task.labels, strict=True)} == {
        "noisy": 0, "light": 2, "dark": 3,
    }  # fmt: skip


def test_names_of_classes_may_have_several_words(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("very good\nvery bad\nn01 tench, Tinca\n", encoding="utf-8")
    assert read_labels(str(file)) == {"very good": 0, "very bad": 1, "n01 tench, Tinca": 2}
    file.write_text("good one\nn01 tench\n", encoding="utf-8")
    assert read_labels(str(file)) == {"good": 0, "good one": 0, "n01": 1, "n01 tench": 1}


def spoil_file(folder: Path) -> None:
    (folder / "dark" / "0.png").write_bytes(b"no image")


def empty_class(folder: Path) -> None:
    (folder / "empty").mkdir()


def flatten(folder: Path) -> None:
    for file in list(folder.rglob("*.*")):
        file.rename(folder / f"{file.parent.name}{file.name}")
    for inner in list(folder.iterdir()):
        if inner.is_dir():
            inner.rmdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_file, r"0\.png: cannot be read as an image"),
        (empty_class, "the folder empty in .* holds no images"),
        (flatten, "holds images but no folders"),
    ],
)
def test_folders_that_cannot_be_used_are_one_line(tmp_path: Path, spoil: object, said: str) -> None:
    tiny.photographs(tmp_path)
    assert callable(spoil)
    spoil(tmp_path)
    with pytest.raises(BadInput, match=said) as caught:
        load_task(source(tmp_path), model=model())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metric": "perplexity"}, "images have top1, top5 or fidelity"),
        ({"window": 3}, "task.window = 3: does not apply to imagefolder: sources"),
        ({"train": 3}, "only a probe is trained"),
        ({"labels": "nowhere.txt"}, "labels = 'nowhere.txt': cannot be read"),
        ({"calibration": 24}, "none is left to score"),
        ({"limit": 99}, "has only 22 samples"),
        ({"probe": True, "metric": "fidelity"}, "fidelity compares features"),
    ],
)
def test_options_that_do_not_fit_are_one_line(tmp_path: Path, options: dict[str, object], said: str) -> None:
    tiny.photographs(tmp_path)
    with pytest.raises(BadInput, match=said):
        load_task(source(tmp_path), model=model(), **options)


def test_a_wrong_number_of_classes_is_one_line(tmp_path: Path) -> None:
    tiny.photographs(tmp_path / "images")
    with pytest.raises(BadInput, match=r"3 class folders \(dark, light, noisy\) but the model has 5 .*task.labels"):
        load_task(source(tmp_path / "images"), model=model(5))
    (tmp_path / "labels.json").write_text(json.dumps({"dark": 0, "light": 9, "noisy": 1}))
    with pytest.raises(BadInput, match="has class 9, the model 5 classes"):
        load_task(source(tmp_path / "images"), model=model(5), labels=str(tmp_path / "labels.json"))
    (tmp_path / "labels.json").write_text(json.dumps({"dark": 0, "light": 1}))
    with pytest.raises(BadInput, match="lacks the folder 'noisy'"):
        load_task(source(tmp_path / "images"), model=model(5), labels=str(tmp_path / "labels.json"))


def test_no_folder_and_no_preparation_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no such folder"):
        load_task(source(tmp_path / "nowhere"), model=model())
    with pytest.raises(BadInput, match="needs a model with a known image preparation"):
        load_task(source(tiny.photographs(tmp_path)))


def test_large_sets_are_read_when_they_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(tiny.photographs(tmp_path).rglob("*.*"))
    kept = Images(files, PREPARATION).load()
    monkeypatch.setattr("ohmformer.models.images.CACHED_BYTES", 1000)
    read = Images(files, PREPARATION).load()
    assert not read._pixels
    assert torch.equal(kept[3:7], read[3:7])
    assert kept.digest == read.digest


def clutter(folder: Path) -> None:
    """What systems and programs keep beside images."""
    for inner in (".ipynb_checkpoints", "__MACOSX", ".git"):
        for place in (folder, folder / "dark"):
            tiny.image(place / inner / "0-checkpoint.png", 1)
    for name in ("._0.png", ".hidden.png", ".DS_Store", "Thumbs.db", "notes.txt", "desktop.ini"):
        (folder / "dark" / name).write_bytes(b"no image")
        (folder / name).write_bytes(b"no image")


def test_what_is_hidden_is_no_image_and_no_class(tmp_path: Path) -> None:
    plain = load_task(source(tiny.photographs(tmp_path / "a")), model=model())
    clutter(tiny.photographs(tmp_path / "b"))
    found = load_task(source(tmp_path / "b"), model=model())
    assert [file.relative_to(tmp_path / "b") for file in found.inputs.files] == [
        file.relative_to(tmp_path / "a") for file in plain.inputs.files
    ]
    assert found.digest == plain.digest
    loose = load_task(source(tmp_path / "b"), model=model(), metric="fidelity")
    assert len(loose) + len(loose.calibration) == 24


def test_images_that_are_not_read_are_noted(tmp_path: Path) -> None:
    tiny.photographs(tmp_path)
    for name in ("a.GIF", "b.heic", "._c.gif"):
        (tmp_path / "dark" / name).write_bytes(b"")
    task = load_task(source(tmp_path), model=model())
    assert task.notes == (f"2 images in {tmp_path} are left out: .gif, .heic is not read",)
    assert not load_task(source(tiny.photographs(tmp_path / "p")), model=model()).notes


def test_a_class_of_hidden_files_alone_has_no_images(tmp_path: Path) -> None:
    tiny.photographs(tmp_path)
    tiny.image(tmp_path / "empty" / ".ipynb_checkpoints" / "0.png", 1)
    with pytest.raises(BadInput, match=r"the folder empty in .* holds no images"):
        load_task(source(tmp_path), model=model())


def test_links_that_lead_back_are_not_followed(tmp_path: Path) -> None:
    tiny.photographs(tmp_path)
    (tmp_path / "dark" / "loop").symlink_to(tmp_path)
    tiny.image(tmp_path / "dark" / "deeper" / "down" / "X.JPeG", 3, high=90)
    task = load_task(source(tmp_path), model=model())
    assert len(task) + len(task.calibration) == 25
    (tmp_path / "again").symlink_to(tmp_path / "again")
    assert len(load_task(source(tmp_path), model=model()).inputs) == len(task)


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.photographs(tmp_path)
    real = os.scandir

    def refuses(path: str) -> object:
        if Path(path).name == "noisy":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuses)
    with pytest.raises(BadInput, match=r"noisy cannot be read \(Permission denied\); change its permissions"):
        load_task(source(tmp_path), model=model())


@pytest.mark.parametrize(
    "text",
    [
        '{"dark": true}',
        '{"dark": 0, "dark": 1}',
        '{"dark": 1.5}',
        '{"dark": 1e400}',
        '{"dark": ' + "9" * 30 + "}",
        "[]",
        "{",
        "[" * 5000,
        "3",
    ],
)
def test_tables_of_labels_that_are_none_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(BadInput, match=r"task\.labels = .*(is not a table|cannot be read)") as caught:
        load_task(source(tiny.photographs(tmp_path / "p", 2)), model=model(), labels=str(tmp_path / "labels.json"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("dark\nlight\n".encode("utf-16-le"), "holds null characters"),
        (b"dark\n\0light\n", "holds null characters"),
        (b"\xef\xbb\xbf\xef\xbb\xbfdark\n", "begins with two byte-order marks"),
        (b"d\xe4rk\n", "is not text in UTF-8"),
        (b"", "is empty or names a class twice"),
    ],
)
def test_files_of_labels_that_are_no_text_are_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(BadInput, match=rf"^task\.labels = '.*labels\.txt'.*: {said}"):
        read_labels(str(tmp_path / "labels.txt"))
