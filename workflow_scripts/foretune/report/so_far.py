"""The report of a study that still runs, from the results that are complete.

It waits for no lock and writes into a folder of its own. Results are whole or absent, but the run
may remove one to make it again. Therefore those that are there are linked into that folder first,
and only the links are read.
"""

import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from foretune.analysis.missing import describe_missing, list_unfinished
from foretune.analysis.paper_tables import identify_paper_study
from foretune.analysis.study_tables import StudyFiles, analyze_study, tabulate_tasks
from foretune.core.files import link_or_copy
from foretune.core.grid import list_parts
from foretune.core.locks import exclusive_lock
from foretune.core.parquet import read_frame
from foretune.report.build import build_report
from foretune.report.provenance import write_provenance


@dataclass(frozen=True)
class Snapshot:
    """Links to the results that are there."""

    files: StudyFiles
    manifests: list[Path]
    epochs: list[Path]


def report_so_far(study: dict, results: Path, output: Path, paper: Path) -> list[str] | None:
    """Write the report and the tables of the pairs that are complete into the folder `output`.

    Args:
        study: checked config.
        results: folder of the study's results.
        output: folder to write into.
        paper: config of the paper's study.

    Returns:
        A line for each model, method and reason about what is missing; None if no pair is
        complete, and nothing is written.
    """
    with exclusive_lock(output):
        links = output / "links"
        shutil.rmtree(links, ignore_errors=True)
        try:
            return write_report(study, link_results(study, results, links), output, paper)
        finally:
            shutil.rmtree(links, ignore_errors=True)


def write_report(study: dict, snapshot: Snapshot, output: Path, paper: Path) -> list[str] | None:
    """Write the report of linked results; arguments and result are those of `report_so_far`."""
    files = snapshot.files
    if not files.evaluations and not files.outcomes:
        return None
    known = tabulate_tasks(files)
    if known.tasks.empty:
        return None
    own = known.outcomes[known.outcomes.trained_on == known.outcomes.evaluated_on]
    tested = set(zip(own.model, own.method, own.trained_on, strict=True))
    unfinished = list_unfinished(study, tested, files.selections, files.measures)
    files = replace(files, unfinished=unfinished)
    datasets = [*study["datasets"], *study["without_images"]]
    studies = identify_paper_study(study["models"], datasets, paper)
    analyze_study(files, study["models"], studies, study["seed"], output / "analysis")
    provenance = output / "provenance.json"
    write_provenance(study, snapshot.manifests, files.measures, provenance)
    build_report(
        output / "analysis", snapshot.epochs, snapshot.manifests, provenance,
        output / "report.html", f"{study['title']}, so far",
    )  # fmt: skip
    missing = read_frame(output / "analysis/missing.parquet")
    return describe_missing(missing.to_dict("records"))


def link_results(study: dict, results: Path, links: Path) -> Snapshot:
    """Link the results of a study that are there into the folder `links`."""

    def link(*names: str) -> list[Path]:
        linked = []
        for name in names:
            target = links / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                link_or_copy(results / name, target)
                linked.append(target)
        return linked

    methods = {} if "outcomes" in study else study["methods"]
    runs = [(model, method) for method in methods for model in methods[method]["models"]]
    kinds: dict[str, list[Path]] = {"": [], "_classes": [], "_confusions": []}
    for model, method in [*((model, "zero_shot") for model in study["models"]), *runs]:
        # A gain is known if the zero-shot accuracy is known, too.
        if method == "zero_shot" or (links / f"evaluations/{model}/zero_shot.parquet").exists():
            linked = link(*(f"evaluations/{model}/{method}{kind}.parquet" for kind in kinds))
            if len(linked) == len(kinds):
                for paths, path in zip(kinds.values(), linked, strict=True):
                    paths.append(path)
    tests = list(study["datasets"])
    tests += [
        f"{name}/shifted/{shift}" for name in tests for shift in study["datasets"][name]["shifted"]
    ]
    manifests = []
    for test in tests:
        folder = f"datasets/{test}"
        linked = link(*(f"{folder}/{name}" for name in ("dataset.json", "test.parquet")))
        link(f"{folder}/notes.json")
        manifests += linked[:1] if len(linked) == 2 else []
    tasks = [f"{model}/{name}" for model in study["models"] for name in study["datasets"]]
    run_tasks = [(model, method, name) for model, method in runs for name in study["datasets"]]
    selections, epochs = [], []
    for model, method, name in run_tasks:
        trials, parts = f"trials/{model}/{method}/{name}", list_parts(methods[method])
        selected = f"selected/{model}/{method}/{name}.json"
        selections += link(selected if methods[method]["parts"] > 1 else f"{trials}/0/best.json")
        epochs += link(*(f"{trials}/{part}/epochs.parquet" for part in parts))
    files = StudyFiles(
        evaluations=kinds[""], classes=kinds["_classes"], confusions=kinds["_confusions"],
        selections=selections,
        measures=link(*(f"measures/{name}.json" for name in [*tasks, *study["embeddings"]])),
        drifts=link(*(f"evaluations/{model}/{method}_drift.parquet" for model, method in runs)),
        rehearsals=link(*(f"rehearsals/{task}.json" for task in tasks)),
        pilots=link(*(f"pilots/{model}/{method}/{name}.json" for model, method, name in run_tasks)),
        outcomes=Path(study["outcomes"]) if "outcomes" in study else None,
        manifests=manifests if "outcomes" in study else [],
    )  # fmt: skip
    return Snapshot(files, manifests, epochs)
