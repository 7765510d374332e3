"""Read what a forecast rests on: the tasks of a study, and what is known of a new dataset."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import pandas as pd

from foretune.analysis.measure_tables import MeasuresFile
from foretune.analysis.pilots import read_pilots
from foretune.core.errors import ForetuneError
from foretune.core.files import read_json
from foretune.core.parquet import read_frame, read_metadata
from foretune.forecast.rehearsal import PREDICTORS, RehearsalFile


class StudyFacts(TypedDict):
    """Metadata of a study's table of tasks."""

    measures: list[str]
    weights: dict[str, str]  # digest of each model's weights
    sources: NotRequired[dict[str, Any]]  # of the bundled study: digests of what it was made from


@dataclass(frozen=True)
class NewTask:
    """A (model, dataset) that is not fine-tuned, with everything that forecasts may use.

    values: the measures and predictors by name; evaluations: the table of tests of the model on
    the dataset itself, zero-shot and by what was fitted on its embeddings; pilots: those of the
    model and dataset, see `read_pilots`, if there are any; notes: of the measures.
    """

    model: str
    dataset: str
    weights: str
    n_train: int
    values: dict[str, float | None]
    rehearsal: RehearsalFile
    evaluations: pd.DataFrame
    pilots: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()


def read_study_results(folder: Path) -> tuple[pd.DataFrame, StudyFacts]:
    """Return a study's tasks and their metadata.

    folder: the study's `results/analysis`. Raises ForetuneError, naming the file, if there is no
    study or if it was not rehearsed.
    """
    path = Path(folder) / "tasks.parquet"
    facts = read_metadata(path)
    tasks = read_frame(path)
    missing = [name for name in ("n_test", *PREDICTORS) if name not in tasks]
    if missing:
        raise ForetuneError(
            f"{path}: the study lacks {', '.join(missing)}, which forecasts need; run it again"
        )
    tasks["run"] = tasks.model + "/" + tasks.method
    return tasks, cast(StudyFacts, {"weights": {}} | facts)


def read_new_tasks(
    measures: list[Path], rehearsals: list[Path], evaluations: list[Path],
    pilots: list[Path] | None = None,
) -> list[NewTask]:  # fmt: skip
    """Read what is known of each (model, dataset) from its files, one per measures file."""
    tested = pd.concat([read_frame(path) for path in evaluations], ignore_index=True)
    rehearsed: dict[tuple, RehearsalFile] = {}
    for path in rehearsals:
        rehearsal: RehearsalFile = read_json(path, RehearsalFile)
        rehearsed[rehearsal["model"], rehearsal["dataset"]] = rehearsal
    piloted = read_pilots(pilots) if pilots else None
    tasks = []
    for path in measures:
        measured = read_json(path, MeasuresFile)
        key = measured["model"], measured["dataset"]
        own = tested[(tested.model == key[0]) & (tested.evaluated_on == key[1])]
        own_pilots = None
        if piloted is not None:
            own_pilots = piloted[(piloted.model == key[0]) & (piloted.dataset == key[1])]
        tasks.append(
            NewTask(
                *key, measured["weights"], measured["n"],
                measured["measures"] | rehearsed[key]["measures"], rehearsed[key],
                own[own.split == "test"], own_pilots, tuple(measured.get("notes", ())),
            )
        )  # fmt: skip
    return tasks


def check_model(task: NewTask, tasks: pd.DataFrame, facts: StudyFacts, study: Path) -> None:
    """Raise ForetuneError if the study has no such model, or has one with other weights."""
    if task.model not in set(tasks.model):
        models = ", ".join(sorted(set(tasks.model))) or "none"
        raise ForetuneError(f"{study}: has no model {task.model}; its models: {models}")
    study_weights = facts["weights"].get(task.model)
    if study_weights is None:
        raise ForetuneError(
            f"{study}: does not record the weights of model {task.model}; run the study again"
        )
    if study_weights != task.weights:
        raise ForetuneError(
            f"{task.dataset}: model {task.model} is not the one of {study}: the digest of its "
            f"weights is {task.weights[:12]}, but {study_weights[:12]} in the study; forecast with "
            f"the study's model, or from a study of this model"
        )
