"""The tasks that are made from registry packages."""

import csv
import random
import re
from dataclasses import replace

import pytest
import yaml
from PIL import Image, ImageDraw

from checkout import ROOT
from foretune.core.config import check_config
from foretune.core.errors import ForetuneError
from foretune.data.sources.local import read_folder_source
from foretune.suite.package_glyphs import SCRIPTS, package_name
from foretune.suite.package_tasks import HELD_BACK, SEEN, STUDY, TASKS, list_entries
from foretune.suite.packages import fetch, locate_package, read_pins
from foretune.suite.task_folders import SIDE, make

PINS = ROOT / "resources/forecast_study/packages.txt"


@pytest.fixture
def packages(tmp_path):
    """A package with four frames of each of two units for all but the last of Wesnoth's peoples."""
    folder = tmp_path / "packages"
    top = locate_package(folder, "debian", "wesnoth-1.16-data")
    units = top / "usr/share/games/wesnoth/1.16/data/core/images/units"
    for number, people in enumerate(("drakes", "dwarves", "orcs")):
        (units / people).mkdir(parents=True)
        for green, unit in ((20, "fighter"), (90, "guard-attack")):
            for frame in range(4):
                picture = Image.new("RGBA", (72, 60))
                box = (10 + 3 * frame, 10, 40 + 3 * frame, 30 + 5 * number)
                ImageDraw.Draw(picture).rectangle(box, (90 * number, green, 0, 255))
                picture.save(units / people / f"{unit}-{frame}.png")
    Image.new("RGBA", (72, 72)).save(units / "orcs/nothing.png")
    return folder


def test_make_writes_a_folder_with_groups_and_leaves_out_blank_pictures(packages, tmp_path, capsys):
    folder = make("peoples", TASKS["peoples"], packages, tmp_path / "peoples")
    assert sorted(path.name for path in folder.iterdir()) == [
        "dragon", "dwarf", "groups.csv", "orc"
    ]  # fmt: skip
    files = sorted(folder.glob("*/*.png"))
    assert len(files) == 3 * 2 * 4
    assert "left out 1 pictures that show nothing" in capsys.readouterr().out
    with Image.open(files[0]) as image:
        assert image.size == (SIDE, SIDE) and image.mode == "RGB"
        assert image.getpixel((0, 0)) == (255, 255, 255)
    with open(folder / "groups.csv") as lines:
        groups = {row["file"]: row["group"] for row in csv.DictReader(lines)}
    assert set(groups) == {str(path.relative_to(folder)) for path in files}
    assert sorted(set(groups.values())) == [
        f"{people}/{unit}" for people in ("drakes", "dwarves", "orcs")
        for unit in ("fighter", "guard")
    ]  # fmt: skip
    source = read_folder_source(folder)
    assert source.classes == ["dragon", "dwarf", "orc"]
    assert set(source.rows["all"].groups) == set(groups.values())


def test_make_samples_the_same_pictures_each_time(packages, tmp_path):
    task = replace(TASKS["peoples"], most_per_class=3)
    first, second = (make("peoples", task, packages, tmp_path / name) for name in "ab")
    files = sorted(path.relative_to(first) for path in first.rglob("*.png"))
    assert sum(file.parts[0] == "dragon" for file in files) == 3
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)


def test_make_without_its_package_says_so(tmp_path):
    with pytest.raises(ForetuneError, match=r"task peoples: .* has no pictures of it"):
        make("peoples", TASKS["peoples"], tmp_path, tmp_path / "peoples")
    assert not (tmp_path / "peoples").exists()


def test_fetch_leaves_what_is_there_and_names_a_package_without_a_pin(packages, tmp_path):
    assert fetch(PINS, [("debian", "wesnoth-1.16-data")], packages) == packages
    with pytest.raises(ForetuneError, match="no line for npm's left-pad"):
        fetch(PINS, [("npm", "left-pad")], packages)
    (tmp_path / "pins.txt").write_text("debian bash 5\nrpm bash 5\n")
    with pytest.raises(ForetuneError, match=r'pins\.txt, line 2: "rpm bash 5" is not'):
        read_pins(tmp_path / "pins.txt")


def test_pins_are_those_of_the_tasks():
    assert set(read_pins(PINS)) == {package for task in TASKS.values() for package in task.packages}


def test_held_back_tasks_are_six_drawn_from_the_new_ones():
    new = sorted(set(TASKS) - set(SEEN))
    drawn = random.Random("held-back tasks of issue 14").sample(new, 6)
    assert sorted(drawn) == list(HELD_BACK)
    assert not set(HELD_BACK) & set(STUDY) and set(HELD_BACK) | set(STUDY) == set(TASKS)


def test_no_package_is_in_the_pretraining_corpus_or_makes_a_bundled_task():
    used = (ROOT / "resources/mini/package.json").read_text()
    used += (ROOT / "resources/mini/tasks/package.json").read_text()
    used += (ROOT / "resources/mini/tasks/debian.txt").read_text()
    names = set(re.findall(r"@iconify-json/[\w-]+|^[\w.+-]+(?==)", used, re.M))
    families = set(re.findall(r"@fontsource/([\w-]+)", used))
    assert len(names) > 50 and len(families) > 80
    for task in TASKS.values():
        for _, package in task.packages:
            assert package not in names
            assert package.removeprefix("fonts-") not in families
    assert package_name("culmus") == "culmus" and len(SCRIPTS) == 9


def test_forecast_study_has_the_default_study_and_every_task_of_the_makers(tmp_path, monkeypatch):
    study = yaml.safe_load((ROOT / "studies/forecast.yaml").read_text())
    default = yaml.safe_load((ROOT / "config.yaml").read_text())
    monkeypatch.chdir(ROOT)
    # The check wants folders that exist; those of the tasks are made by `make forecast-study`.
    made = {"folder": str(tmp_path)}
    entries = study["datasets"].items()
    there = {name: entry | made if "folder" in entry else entry for name, entry in entries}
    check_config(study | {"datasets": there})
    for key in ("seed", "models", "measures", "methods"):
        assert study[key] == default[key]
    folders = {name: ROOT / "results/forecast_study/tasks" / name for name in STUDY}
    assert study["datasets"] == default["datasets"] | list_entries(folders, ROOT)
