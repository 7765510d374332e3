"""Describe the bundled suite, compare it with a rebuilt one, and bundle a study's tables."""

import io
import itertools
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from foretune.core.errors import ForetuneError
from foretune.core.files import atomic_write, digest_file, digest_json
from foretune.core.parquet import read_metadata, write_parquet
from foretune.data.prepared import decode_image
from foretune.data.sources.local import read_parquet_source
from foretune.encoders.captions import make_captions
from foretune.encoders.encode import encode_captions, encode_images
from foretune.encoders.loading import CONFIG_NAME, WEIGHTS_NAME, load_model
from foretune.encoders.zero_shot import predict_classes
from foretune.suite.leak_check import DIGEST_SIDE

# Training gives the same bits only with the same processor, libraries and threads. Otherwise it
# rounds differently, which moves an accuracy by a few points.
ACCURACY_TOLERANCE = 0.05
PINS = Path("resources/forecast_study/packages.txt")


def list_tasks(folder: Path) -> list[Path]:
    """List the Parquet files of the tasks, shifted tests included."""
    return sorted(path for path in folder.glob("*.parquet") if path.stem != "corpus_index")


def list_encoders(folder: Path) -> list[Path]:
    """List the model folders."""
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG_NAME}"))


def zero_shot_accuracies(encoder: Path, tasks: list[Path]) -> dict[str, float]:
    """Return the zero-shot accuracy of a model folder on the test of each task, by its name."""
    model, preprocess, tokenizer = load_model({"folder": str(encoder)})
    accuracies = {}
    for path in tasks:
        source = read_parquet_source(path)
        _, encoded, labels = zip(*source.rows["test"].read(), strict=True)
        images = np.stack([preprocess(decode_image(image, path.name)).numpy() for image in encoded])
        captions = make_captions(source.classes, source.caption)
        vectors = encode_images(model, preprocess, images)
        predicted = predict_classes(vectors, encode_captions(model, tokenizer, captions)).numpy()
        accuracies[path.stem] = float(np.mean(predicted == np.array(labels)))
    return accuracies


def zero_shot_table(folder: Path) -> str:
    """Return a Markdown table of chance and each encoder's zero-shot accuracy, a row per task."""
    tasks = list_tasks(folder)
    columns = {"chance": {path.stem: 1 / len(read_parquet_source(path).classes) for path in tasks}}
    for encoder in list_encoders(folder):
        columns[encoder.name] = zero_shot_accuracies(encoder, tasks)
    lines = [f"| task | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for path in tasks:
        numbers = " | ".join(f"{column[path.stem]:.3f}" for column in columns.values())
        lines.append(f"| {path.stem} | {numbers} |")
    return "\n".join(lines)


def compare_data(rebuilt: Path, bundled: Path) -> str:
    """Report for each Parquet file of the suite whether the rebuilt one has the same bytes."""
    lines = []
    for path in sorted(bundled.glob("*.parquet")):
        twin = rebuilt / path.name
        same = twin.exists() and twin.read_bytes() == path.read_bytes()
        lines.append(f"{path.name}: {'the same to the byte' if same else 'DIFFERENT'}")
    return "\n".join(lines)


def compare_encoders(rebuilt: Path, bundled: Path) -> str:
    """Report for each encoder whether the rebuilt one has the same zero-shot accuracies."""
    lines, tasks = [], list_tasks(bundled)
    for folder in list_encoders(bundled):
        twin = rebuilt / folder.name
        if not (twin / WEIGHTS_NAME).exists():
            lines.append(f"{folder.name}: not rebuilt")
            continue
        both = pd.DataFrame([zero_shot_accuracies(encoder, tasks) for encoder in (folder, twin)])
        difference = both.diff().iloc[1].abs()
        verdict = "the same" if difference.max() <= ACCURACY_TOLERANCE else "DIFFERENT"
        lines.append(
            f"{folder.name}: {verdict} (zero-shot accuracies differ by {difference.mean():.3f} on "
            f"average, by {difference.max():.3f} at most, on {difference.idxmax()})"
        )
    return "\n".join(lines)


def digest_study_sources(config: dict) -> dict[str, str]:
    """Return digests of what determines a study's numbers: encoders, tasks, recipes, seed.

    Folders are package tasks: their entries count, and the pins of their packages.
    """
    files = [Path(entry["folder"], WEIGHTS_NAME) for entry in config["models"].values()]
    files += [Path(entry["parquet"]) for entry in config["datasets"].values() if "parquet" in entry]
    made = {name: entry for name, entry in config["datasets"].items() if "folder" in entry}
    digests = {name: digest_json(entry) for name, entry in made.items()}
    digests |= {str(path): digest_file(path) for path in files + [PINS] * bool(made)}
    return digests | {"methods": digest_json(config["methods"]), "seed": str(config["seed"])}


def bundle_study(results: Path, config: dict, output: Path) -> None:
    """Copy what forecasts need of a study's results, with the digests of its sources.

    config: the content of its config. Raises ForetuneError if the results are of another study.
    """
    path = Path("analysis/tasks.parquet")
    facts, tasks = read_metadata(results / path), pq.read_table(results / path)
    for key, column in (("models", "model"), ("methods", "method"), ("datasets", "dataset")):
        names = set(tasks[column].to_pylist())
        if names != set(config[key]):
            raise ForetuneError(
                f"{results / path}: its {key} are {', '.join(sorted(names))}, but the config has "
                f"{', '.join(config[key])}"
            )
    write_parquet(tasks, output / path, facts | {"sources": digest_study_sources(config)})


def draw_overview(folder: Path, output: Path, columns: int = 18) -> None:
    """Draw a PNG with a row of test images for each task, under the name of the task."""
    tasks = list_tasks(folder)
    side, row_height = 2 * DIGEST_SIDE, 2 * DIGEST_SIDE + 20  # pixels
    sheet = Image.new("RGB", (columns * (side + 4), len(tasks) * row_height), "white")
    pen = ImageDraw.Draw(sheet)
    for row, path in enumerate(tasks):
        source = read_parquet_source(path)
        names = textwrap.shorten(", ".join(source.classes), 150, placeholder=" ...")
        pen.text((2, row * row_height + 2), f"{path.stem}: {names}", fill="black")
        for column, (_, encoded, _) in enumerate(
            itertools.islice(source.rows["test"].read(), columns)
        ):
            image = decode_image(encoded, path.name).convert("RGB").resize((side, side))
            sheet.paste(image, (column * (side + 4), row * row_height + 16))
    buffer = io.BytesIO()
    sheet.quantize(256).save(buffer, "PNG", optimize=True)
    with atomic_write(output) as partial:
        partial.write_bytes(buffer.getvalue())
