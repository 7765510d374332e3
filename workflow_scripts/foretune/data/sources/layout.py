"""The layout of a folder of images: splits, class folders, and folders that are neither."""

import os
import re
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from foretune.core.errors import ForetuneError
from foretune.data.sources.base import (
    TRAIN_AND_TEST,
    format_class_names,
    join_names,
    sort_class_names,
)
from foretune.data.sources.listing import (
    Listing,
    check_names,
    format_left_out,
    get_reason_to_skip,
    is_hidden_folder,
    list_folder,
)

# What folders of splits are called: in any case, and also with "set" or "_set" at the end.
SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass
class FolderPart:
    """A folder of class folders: a whole dataset, or one of its splits.

    Attributes:
        root: the folder.
        listing: what lies in it.
        classes: name of each class with an image, as captions have it -> its folder's name.
        empty: names of the folders without an image, as captions have them -> folder's names.
    """

    root: Path
    listing: Listing
    classes: dict[str, str]
    empty: dict[str, str]


def find_splits(folder: Path) -> dict[str, Path]:
    """Return the subfolders that are splits, by "train", "test" and "val"; empty without them.

    Raises:
        ForetuneError: two folders look like the same split, or there is a training split without
            a test. A test alone is returned.
    """
    found: dict[str, list[Path]] = {}
    for path in list_subfolders(folder):
        key = re.sub(r"[\W_]", "", path.name.lower()).removesuffix("set")
        if key in SPLIT_NAMES:
            found.setdefault(SPLIT_NAMES[key], []).append(path)
    main = [path for split in TRAIN_AND_TEST for path in found.get(split, [])]
    if len(main) == 1 and main[0].name not in TRAIN_AND_TEST and has_images(main[0]):
        return {}  # a class that happens to be called Testing
    if not main:
        return {}  # and so is one called valid
    for split, paths in found.items():
        if len(paths) > 1:
            names = " and ".join(f"{path.name}/" for path in paths)
            raise ForetuneError(f"{folder}: {names} look like its {split} split; rename one")
    splits = {split: path for split, (path,) in found.items()}
    if "test" not in splits:
        val = f"; rename {splits['val'].name}/ to test/ to test on it" if "val" in splits else ""
        raise ForetuneError(
            f"{folder}: has {main[0].name}/ but no test/; without both, give class folders{val}; "
            "if it is a class, rename the folder and give the class its name by `classes:`"
        )
    return splits


def refuse_parts(folder: Path) -> None:
    """Refuse a folder whose subfolders have no images of their own and share their subfolders.

    They are parts of a dataset, such as years or domains, and would be taken for its classes.
    """
    subfolders = {path: list_subfolders(path) for path in list_subfolders(folder)}
    filled = {path: inner for path, inner in subfolders.items() if inner or has_images(path)}
    if len(filled) < 2 or any(has_images(path) for path in filled):
        return
    inner_names = [set(format_class_names(p.name for p in inner)) for inner in filled.values()]
    common = sorted(set.intersection(*inner_names))
    if len(common) > 1:
        raise ForetuneError(
            f"{folder}: {join_names((f'{path.name}/' for path in filled), 4)} look like parts of a "
            f"dataset and not like classes: all have the subfolders {join_names(common, 4)}. Name "
            "the parts train/ and test/, or give the folder of one part; if they are classes, "
            "give each a name by `classes:` in the study"
        )


def describe_unused_folders(folder: Path, splits: dict[str, Path]) -> list[str]:
    """Return a note on the folders beside train/ and test/, or no note.

    Raises:
        ForetuneError: there is a test without a training split.
    """
    if not splits:
        return []
    if "train" not in splits:
        raise ForetuneError(
            f"{folder}: has {splits['test'].name}/ but no train/; without both, give class folders"
        )
    used = [splits[split].name for split in TRAIN_AND_TEST]
    unused = [f"{path.name}/" for path in list_subfolders(folder) if path.name not in used]
    if not unused:
        return []
    hint = f"; validation is a tenth of {used[0]}/" if "val" in splits else ""
    verb = "is" if len(unused) == 1 else "are"
    return [f"{join_names(unused)} {verb} not used{hint}"]


def list_part(root: Path) -> FolderPart:
    """List a folder of class folders.

    Raises:
        ForetuneError: two folders have the same class name, or a name cannot be kept.
    """
    listing = list_folder(root)
    direct = [name for name in listing.images if "/" not in name]
    listing.images = [name for name in listing.images if "/" in name]
    if direct:
        listing.left_out["images beside the class folders"] = len(direct)
    filled = {name.split("/")[0] for name in [*listing.images, *listing.others] if "/" in name}
    check_names(filled)
    check_names(listing.images)
    classes: dict[str, str] = {}
    empty: dict[str, str] = {}
    for name in (name for name in listing.folders if "/" not in name):
        (class_name,) = format_class_names([name])
        if name in filled and class_name in classes:
            raise ForetuneError(
                f"{root}: two classes have the same name: {[class_name]}; they are the folders "
                f"{classes[class_name]!a} and {name!a}"
            )
        (classes if name in filled else empty)[class_name] = name
    return FolderPart(root, listing, classes, empty)


def choose_classes(
    parts: dict[str, FolderPart], left_out: Counter[str], notes: list[str]
) -> list[str]:
    """Return the class names in the order of the labels, that of the folders for training.

    A note on folders without an image is added to `notes`.

    Raises:
        ForetuneError: there are fewer than two classes, or the test has others.
    """
    first, last = next(iter(parts.values())), list(parts.values())[-1]
    # A class with test images only is refused later, as one that has no training image.
    names = first.classes | {n: f for n, f in first.empty.items() if n in last.classes}
    empty = sorted(folder for name, folder in first.empty.items() if name not in names)
    why = f" ({format_left_out(left_out)})" if left_out else ""
    if not names and empty:
        raise ForetuneError(f"{first.root}: no images in its train split{why}")
    by_folder = {folder: name for name, folder in names.items()}
    classes = [by_folder[folder] for folder in sort_class_names(by_folder)]
    if len(classes) < 2:
        inner = [path for path in list_subfolders(first.root) if len(list_subfolders(path)) > 1]
        hint = f"; there is no training image of {empty}" if empty else ""
        hint += f"; is {inner[0]} the folder that is meant?" if len(inner) == 1 else ""
        raise ForetuneError(
            f"{first.root}: needs one subfolder per class, at least two; found {classes}{hint}{why}"
        )
    unknown = [folder for name, folder in last.classes.items() if name not in names]
    if unknown:
        raise ForetuneError(
            f"{last.root}: classes that {first.root} does not have: {sorted(unknown)}; it has "
            f"{join_names(classes)}"
        )
    if empty:
        notes.append(f"no class, because it has no image: {join_names(f'{e}/' for e in empty)}")
    return classes


def list_subfolders(folder: Path) -> list[Path]:
    """Return the visible subfolders, sorted by name; system folders are left out."""
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not is_hidden_folder(p.name))
    except OSError as error:
        raise ForetuneError(f"{error.filename}: cannot be read ({error.strerror})") from None


def has_images(folder: Path) -> bool:
    """Return whether images lie in the folder itself."""
    with os.scandir(folder) as entries:
        return any(e.is_file() and not get_reason_to_skip(e.name, stat.S_IFREG) for e in entries)
