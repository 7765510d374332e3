"""Accuracies from elsewhere: a CSV file that takes the place of fine-tuning. Free of torch.

Every dry run reads the file, so that a mistake in it ends a run before its first job.
"""

import csv
from pathlib import Path
from typing import Any, NamedTuple

from foretune.core.errors import ForetuneError
from foretune.core.schema_errors import suggest_name

ZERO_SHOT_METHOD = "zero_shot"
KEY_COLUMNS = ("model", "method", "trained_on", "evaluated_on")
# The accuracy's column says its unit: its largest possible value.
ACCURACY_COLUMNS = {"accuracy": 1.0, "accuracy_percent": 100.0}


class OutcomeRow(NamedTuple):
    """One line of the file; `accuracy` is a share, whatever the file's unit."""

    line: int
    model: str
    method: str
    trained_on: str | None  # None for the zero-shot model
    evaluated_on: str
    split: str  # "test", or the name of a shifted test
    accuracy: float
    n: int | None  # test images

    @property
    def test(self) -> tuple[str, str]:
        return self.evaluated_on, self.split

    @property
    def key(self) -> tuple[str, str, str | None, str, str]:
        return self.model, self.method, self.trained_on, self.evaluated_on, self.split


def read_outcomes(path: Path | str) -> list[OutcomeRow]:
    """Return the rows of a file of outcomes; columns that foretune does not use are ignored.

    Raises:
        ForetuneError: the file cannot be read, lacks a column, or has a value that is no accuracy
            or no count; the message names the file and the line.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            accuracy_column = check_columns(path, list(reader.fieldnames))
            rows = [parse_row(f"{path}: line {reader.line_num}", reader.line_num, row,
                              accuracy_column) for row in reader]  # fmt: skip
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ForetuneError(f"{path}: cannot be read: {error}") from None
    if not rows:
        raise ForetuneError(f"{path}: has no rows")
    if accuracy_column == "accuracy_percent" and all(row.accuracy <= 0.01 for row in rows):
        raise ForetuneError(
            f"{path}: no accuracy_percent is above 1; if the file has shares, name the column "
            "accuracy"
        )
    return rows


def check_columns(path: Path | str, columns: list[str]) -> str:
    """Return the name of the accuracy's column. Raises ForetuneError if a column is missing."""
    missing = [name for name in KEY_COLUMNS if name not in columns]
    if missing:
        raise ForetuneError(
            f"{path}: no column {', '.join(missing)}; the first line names the columns "
            f"{', '.join((*KEY_COLUMNS, *ACCURACY_COLUMNS))} (one of the last two) and n, split "
            "if there are any"
        )
    present = [name for name in ACCURACY_COLUMNS if name in columns]
    if len(present) != 1:
        raise ForetuneError(
            f"{path}: needs either a column accuracy (a share from 0 to 1) or a column "
            f"accuracy_percent (from 0 to 100), but has {' and '.join(present) or 'neither'}"
        )
    return present[0]


def parse_row(where: str, line: int, row: dict, accuracy_column: str) -> OutcomeRow:
    """Return a row with its accuracy as a share. Raises ForetuneError, beginning with `where`."""
    if None in row or None in row.values():
        raise ForetuneError(f"{where}: has more or fewer values than the first line has columns")
    values: dict[str, str] = {name: value.strip() for name, value in row.items()}
    for name in ("model", "method", "evaluated_on"):
        if not values[name]:
            raise ForetuneError(f"{where}: {name} is empty")
    largest, text = ACCURACY_COLUMNS[accuracy_column], values[accuracy_column]
    try:
        accuracy = float(text)
    except ValueError:
        raise ForetuneError(f"{where}: {accuracy_column} {text!r} is not a number") from None
    if not 0 <= accuracy <= largest:
        hint = ""
        if largest == 1 and 1 < accuracy <= 100:
            hint = "; if the file is in percent, name the column accuracy_percent"
        raise ForetuneError(
            f"{where}: {accuracy_column} is {text}, not from 0 to {largest:g}{hint}"
        )
    n = values.get("n", "")
    if n and not (n.isdecimal() and len(n) < 19 and int(n) > 0):
        raise ForetuneError(f"{where}: n is {n!r}, not a number of test images")
    zero_shot = values["method"] == ZERO_SHOT_METHOD
    if zero_shot and values["trained_on"]:
        raise ForetuneError(
            f"{where}: a zero-shot model is trained on nothing; leave trained_on empty"
        )
    if not zero_shot and not values["trained_on"]:
        raise ForetuneError(
            f"{where}: trained_on is empty, and only rows of method {ZERO_SHOT_METHOD} may leave "
            "it so"
        )
    return OutcomeRow(
        line, values["model"], values["method"], values["trained_on"] or None,
        values["evaluated_on"], values.get("split") or "test", accuracy / largest,
        int(n) if n else None,
    )  # fmt: skip


def check_outcomes(config: dict[str, Any]) -> None:
    """Refuse outcomes that do not fit the study. config: with all defaults filled in.

    Raises:
        ForetuneError: a name is unknown, a row comes twice, a fine-tuned model was not tested on
            its own dataset, or the zero-shot accuracy on a test is missing, or temperatures are
            to be fitted.
    """
    path, listed = config.get("outcomes"), config["without_images"]
    if path is None:
        if listed:
            raise ForetuneError(
                "without_images: a dataset without images needs outcomes, the file that has its "
                "accuracies"
            )
        return
    if config["temperature_scaling"]:
        raise ForetuneError(
            "temperature_scaling: needs predictions, which outcomes does not have; leave out one"
        )
    for name in listed:
        if name in config["datasets"]:
            raise ForetuneError(f"without_images: {name}: is among datasets, so it has images")
    rows, first = read_outcomes(path), dict[tuple, int]()
    for row in rows:
        where = f"{path}: line {row.line}"
        check_names(where, row, config)
        if row.key in first:
            raise ForetuneError(
                f"{where}: model, method, trained_on, evaluated_on and split are those of line "
                f"{first[row.key]}; keep one of the two"
            )
        first[row.key] = row.line
    for row in rows:
        where = f"{path}: line {row.line}"
        zero_shot = (row.model, ZERO_SHOT_METHOD, None, *row.test)
        if zero_shot not in first:
            test = "/".join(row.test).removesuffix("/test")
            raise ForetuneError(
                f"{where}: no row has the zero-shot accuracy of {row.model} on {test}; add one "
                f"with method {ZERO_SHOT_METHOD} and an empty trained_on"
            )
        if row.trained_on and (*row.key[:3], row.trained_on, "test") not in first:
            raise ForetuneError(
                f"{where}: no row has the accuracy on {row.trained_on} of {row.model} as "
                f"fine-tuned on it by {row.method}"
            )


def check_names(where: str, row: OutcomeRow, config: dict[str, Any]) -> None:
    """Refuse names in a row that are not the study's."""
    methods, datasets = config["methods"], [*config["datasets"], *config["without_images"]]
    for column, name, known in (
        ("model", row.model, list(config["models"])),
        ("method", row.method, [*methods, ZERO_SHOT_METHOD]),
        ("trained_on", row.trained_on, [*datasets, None]),
        ("evaluated_on", row.evaluated_on, datasets),
    ):
        if name not in known:
            hint = suggest_name(str(name), [each for each in known if each])
            raise ForetuneError(f"{where}: {column} {name} is not in the study{hint}")
    if row.method in methods and row.model not in methods[row.method]["models"]:
        raise ForetuneError(
            f"{where}: methods.{row.method}.models does not list the model {row.model}"
        )
    shifted = config["datasets"].get(row.evaluated_on, {}).get("shifted", {})
    if row.split != "test" and row.split not in shifted:
        raise ForetuneError(
            f"{where}: split {row.split}: datasets.{row.evaluated_on}.shifted has no test of this "
            "name"
        )
