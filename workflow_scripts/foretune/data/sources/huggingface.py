"""Read datasets that Hugging Face's library `datasets` reads."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foretune.core.entries import SourceSpec
from foretune.core.errors import ForetuneError
from foretune.core.untrusted import lies_inside
from foretune.data.sources.base import (
    DEFAULT_CAPTION,
    NOT_STATED,
    ImageRow,
    ImageRows,
    ImageSource,
    format_class_names,
    make_groups,
    read_image_file,
    sort_class_names,
)
from foretune.data.sources.registry import explain_dataset_fetch


def read_huggingface(root: Path, spec: SourceSpec, wanted: tuple[str, ...]) -> ImageSource:
    """Read a folder with Hugging Face's library `datasets`.

    The folder is a dataset repository of the hub (Parquet files or images) or was written by
    `save_to_disk`; a single Dataset is an undivided source. In the entry, `subset` is the name of
    the configuration, and `splits` has the library's names of the splits. `image` and `label` are
    columns, by default the first column of images and the first of class labels, and `group` is
    the column of groups, if there are groups.

    Raises:
        ForetuneError: the library cannot read the folder, or a column is missing or of another
            kind.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # otherwise the library reports its use
    try:
        import datasets
    except ImportError:
        raise ForetuneError(
            "Hugging Face's datasets are read by the package datasets: pip install datasets"
        ) from None
    single = (root / "state.json").is_file()  # what save_to_disk writes of a Dataset
    rows = {}
    classes: list[str] = []
    for split in ("all",) if single else wanted:
        name = spec.get("splits", {}).get(split, split)
        table = load_table(root, spec, None if single else name)
        image = find_huggingface_column(table, "image", spec.get("image"), datasets.Image, root)
        label = find_huggingface_column(
            table, "label", spec.get("label"), datasets.ClassLabel, root
        )
        values, names = list_labels(table, label, f"{root}: {name}")
        classes = classes or names
        unknown = [class_name for class_name in names if class_name not in classes]
        if unknown:
            raise ForetuneError(
                f"{root}: {name}: classes that {wanted[0]} does not have: {unknown}"
            )
        labels = {v: classes.index(class_name) for v, class_name in zip(values, names, strict=True)}
        try:
            encoded = table.cast_column(image, datasets.Image(decode=False))
        except Exception as error:  # the library and pyarrow raise many kinds
            raise ForetuneError(f"{root}: {name}: column {image}: no images ({error})") from None
        rows[split] = make_huggingface_rows(
            encoded.select_columns([image, label]), split, labels, root, name
        )
        if "group" in spec:
            group = find_huggingface_column(table, "group", spec["group"], type(None), root)
            rows[split].groups = make_groups(table[group])
    return ImageSource(format_class_names(classes), DEFAULT_CAPTION, NOT_STATED, "", rows)


def load_table(root: Path, spec: SourceSpec, split: str | None) -> Any:
    """Return a split as the library reads it, or a saved Dataset if `split` is None.

    Raises:
        ForetuneError: the library cannot read it.
    """
    import datasets

    try:
        if split is None:
            return datasets.load_from_disk(str(root))
        if (root / "dataset_dict.json").is_file():
            splits = datasets.load_from_disk(str(root))
            if split not in splits:
                raise ValueError(f"it has {', '.join(splits)}; name it by `splits:`")
            return splits[split]
        builder = datasets.load_dataset_builder(str(root), spec.get("subset"))
        # The README of a repository may name files that lie elsewhere.
        for path in (builder.config.data_files or {}).get(split, []):
            if not lies_inside(root, path):
                raise ValueError(f"its README names {path}, which lies outside the folder")
        return datasets.load_dataset(str(root), spec.get("subset"), split=split)
    except Exception as error:  # from pyarrow, fsspec and the library itself
        part = "the dataset" if split is None else f"split {split}"
        raise ForetuneError(
            f"{root}: datasets cannot read {part} ({error}); {explain_dataset_fetch(spec)}"
        ) from None


def list_labels(table: Any, column: str, where: str) -> tuple[list, list[str]]:
    """Return the values of the column of labels and the class names that they stand for.

    A missing value stands for no class.

    Raises:
        ForetuneError: the column holds no single values. The message begins with `where`.
    """
    import datasets

    feature = table.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return list(range(len(feature.names))), feature.names
    try:
        present = [v for v in table.unique(column) if v is not None and v == v]  # no NaN
        if present and isinstance(present[0], str):
            values = sort_class_names(present)
        else:
            values = sorted(present)
    except Exception as error:  # pyarrow has no unique values of lists, and raises many kinds
        raise ForetuneError(
            f"{where}: column {column} has no single label per image ({feature}: {error})"
        ) from None
    return values, [str(value) for value in values]


def find_huggingface_column(
    table: Any, key: str, column: str | None, feature: type, root: Path
) -> str:
    """Return `column` if it is given, otherwise the first column with this kind of feature.

    Args:
        key: the key of the entry that names the column, for the error message.

    Raises:
        ForetuneError: the table has no such column.
    """
    fitting = [name for name, kind in table.features.items() if isinstance(kind, feature)]
    column = column or next(iter(fitting), key)
    if column not in table.features:
        columns = ", ".join(table.features)
        raise ForetuneError(
            f"{root}: has no column {column} (it has {columns}); name it by `{key}:`"
        )
    return column


def make_huggingface_rows(
    table: Any, split: str, labels: dict[Any, int], root: Path, name: str
) -> ImageRows:
    """Return rows of a table with two columns: images, as encoded bytes or paths, and values.

    A path is relative to the dataset's folder `root`, and must lie in it or in the library's cache,
    where archives are unpacked.

    Args:
        labels: the label of each value.
        name: the library's name of the split, for error messages.
    """
    import datasets

    image, label = table.column_names
    folders = (root, datasets.config.HF_DATASETS_CACHE)

    def read() -> Iterator[ImageRow]:
        for number, row in enumerate(table):
            cell = row[image] or {}
            content: bytes | ForetuneError = cell.get("bytes") or b""
            where, path = f"{root}: {name}: row {number}", cell.get("path")
            if not content and path:
                if any(lies_inside(folder, path) for folder in folders):
                    content = read_image_file(root / path)
                else:
                    content = ForetuneError(f"{where}: {path} lies outside the folder")
            if not content:
                content = ForetuneError(f"{where}: has no image")
            yield ImageRow(f"{split}/{number:06d}", content, labels.get(row[label], row[label]))

    return ImageRows([labels.get(value, value) for value in table[label]], read)
