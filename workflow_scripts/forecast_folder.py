"""Forecast what fine-tuning would do to a folder of images with one subfolder per class.

The script checks the folder, adds it under `forecast` to a copy of the study's config, and runs
only the forecast. It uses completed results: those in results/ if they include the study's models,
otherwise the bundled results of the default study. Options that are not listed here are passed to
Snakemake.
"""

import os
import re
import sys
import unicodedata
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from foretune.core import cli
from foretune.core.config import check_config
from foretune.core.errors import ForetuneError
from foretune.core.files import atomic_write
from foretune.core.locks import lock_results
from foretune.core.parquet import read_table
from foretune.core.study_file import read_study
from foretune.data.prepare import check_source
from foretune.data.sources.listing import check_names

STUDY = Path("results/forecast/study.yaml")
NAMES = ("forecasts.csv", "rankings.csv", "forecast.txt", "forecast.html")
TARGETS = [f"results/forecast/{name}" for name in NAMES]
BUNDLED = Path(__file__).parents[1] / "resources/mini/study"


def find_completed_study(models: list[str]) -> Path:
    """Return the results folder of a completed study that has all of these models.

    That is `results/`, or the bundled study if it has every dataset of `results/`, and so more. The
    path is absolute: Snakemake would rerun the study for a relative path in results/. Raises
    ForetuneError if there is no such study.
    """
    datasets: dict[Path, set[str]] = {}
    for results in (BUNDLED, Path("results").absolute()):
        path = results / "analysis/tasks.parquet"
        if path.is_file():
            tasks = read_table(path, ["model", "dataset"]).to_pandas()
            if set(models) <= set(tasks.model):
                datasets[results] = set(tasks.dataset)
    if datasets:
        best = max(
            datasets, key=lambda results: len(datasets[results] - datasets.get(BUNDLED, set()))
        )
        cli.log(f"Forecasting from the completed study in {best}: {len(datasets[best])} datasets")
        return best
    raise ForetuneError(
        f"results: there is no completed study of {', '.join(models)} to forecast from; run the "
        f"study first, or set forecast.study in the config to another study's results folder"
    )


def has_pilots(study: Path, steps: int) -> bool:
    """Return whether the tasks of a completed study have pilots of so many steps."""
    path = study / "analysis/tasks.parquet"
    if "pilot_steps" not in pq.read_schema(path).names:
        return False
    return set(read_table(path, ["pilot_steps"])["pilot_steps"].drop_null().to_pylist()) == {steps}


def add_forecast(config: dict, folder: Path, caption: str | None, weight: float | None) -> str:
    """Add a folder of images to the config's forecasts, and return the dataset's name."""
    composed = unicodedata.normalize("NFC", folder.name)
    # Names in the config have letters of any script, but no blanks and no other signs of ASCII.
    name = re.sub(r"[\x00-,/:-@\[-^`{-\x7f\s]", "_", composed).lstrip("_.-")[:40] or "folder"
    forecast = config.setdefault("forecast", {})
    taken = {*config.get("datasets", {}), *forecast.setdefault("datasets", {})}
    while name in taken:
        name += "_"
    forecast["datasets"][name] = {"folder": str(folder)}
    if caption:
        forecast["datasets"][name]["caption"] = caption
    if weight is not None:
        forecast["weight"] = weight
    return name


def check_folder(name: str, folder: Path, shown: Path) -> None:
    """Check the folder as far as its list of files tells, and print what is left out and noticed.

    Raises ForetuneError, with the path `shown` in it.
    """
    try:
        for note in check_source(name, {"folder": str(folder)}, seed=0):
            cli.log(f"{shown}: {note}")
    except ForetuneError as error:
        prefix = "" if str(folder) in str(error) else f"{shown}: "
        raise ForetuneError(f"{prefix}{error}") from None


def work() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_path_options(
        parser, data="folder of images, with one subfolder per class", study="config of the study"
    )
    parser.add_argument(
        "--caption", help="caption of a class, with {} for its name, e.g. 'a sketch of a {}'"
    )
    parser.add_argument(
        "--weight",
        type=float,
        help="weight of forgetting in the ranking, from 0 (only gain counts) to 1",
    )
    parser.add_argument(
        "--pilot", type=int, help="steps of a pilot of each method, whose accuracy is a predictor"
    )
    args, snakemake_options = parser.parse_known_args()
    folder = args.data.resolve()
    check_names([str(folder)])
    config = read_study(args.study)
    try:
        name = add_forecast(config, folder, args.caption, args.weight)
    except (AttributeError, TypeError) as error:
        raise ForetuneError(f"{args.study}: not a readable study ({error})") from None
    if args.pilot is not None:
        config["forecast"]["pilot"] = {"steps": args.pilot}
    models = list(check_config(config)["models"])
    if "study" not in config["forecast"]:
        config["forecast"]["study"] = str(find_completed_study(models))
    if args.pilot is not None and not has_pilots(Path(config["forecast"]["study"]), args.pilot):
        cli.log(
            f"The study has no pilots of {args.pilot} steps: pilots will be shown, but forecasts "
            "cannot use them"
        )
    check_folder(name, folder, args.data)  # before the last answer is taken away
    if not {"-n", "--dry-run", "--dryrun"} & set(snakemake_options):
        lock_results()  # or the answer of another run, which is still at work, would be taken away
        for target in TARGETS[2:]:  # otherwise a failed run would leave an older answer
            Path(target).unlink(missing_ok=True)
    with atomic_write(STUDY) as beside:
        beside.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    run_study = str(Path(__file__).with_name("run_study.py"))
    sys.stdout.flush()
    os.execv(
        sys.executable,
        [sys.executable, run_study, *TARGETS, *snakemake_options, "--study", str(STUDY)],
    )


if __name__ == "__main__":
    cli.main(work)
