"""Forecast what fine-tuning would do to a folder of images with one subfolder a class.

The folder is checked, added to a copy of the study's config under `forecast`, and that is run for
the forecast alone, from results that are complete: those in results/ if they have the study's
models, else the bundled ones of the default study. Arguments that are not named here go to
Snakemake.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import pandas as pd
import yaml

from foretune.core import cli
from foretune.core.config import check_config, read_study
from foretune.core.errors import ForetuneError
from foretune.core.files import atomic_write
from foretune.data.prepare import prepare_dataset

STUDY = Path("results/forecast/study.yaml")
TARGETS = [f"results/forecast/{name}" for name in ("forecasts.csv", "rankings.csv", "forecast.txt")]
BUNDLED = Path(__file__).parents[1] / "resources/mini/study"


def completed_study(models: list[str]) -> Path:
    """The results folder, its path whole, so that Snakemake takes it as it is and runs no study.

    Raises ForetuneError where no completed study has these models.
    """
    for results in (Path("results").absolute(), BUNDLED):
        tasks = results / "analysis/tasks.parquet"
        if tasks.is_file() and set(models) <= set(pd.read_parquet(tasks, columns=["model"]).model):
            cli.log(f"Forecasting from the study in {results}")
            return results
    raise ForetuneError(
        f"results: no completed study of {', '.join(models)} to forecast from; run it first, or "
        f"name another's results under forecast.study"
    )


def work() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_path_options(parser, data="the folder of images", study="config of the study")
    parser.add_argument("--caption", help="of a class {}; as for any dataset by default")
    parser.add_argument("--weight", type=float, help="of forgetting against gain, 0 to 1")
    args, others = parser.parse_known_args()
    folder = args.data.resolve()
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", folder.name).lstrip("_.-") or "folder"
    config = read_study(args.study)
    try:
        forecast = config.setdefault("forecast", {})
        taken = {*config.get("datasets", {}), *forecast.setdefault("datasets", {})}
        while name in taken:
            name += "_"
        forecast["datasets"][name] = {"folder": str(folder)}
        if args.caption:
            forecast["datasets"][name]["caption"] = args.caption
        if args.weight is not None:
            forecast["weight"] = args.weight
    except (AttributeError, TypeError) as error:
        raise ForetuneError(f"{args.study}: not a readable study ({error})") from None
    models = list(check_config(config)["models"])
    if "study" not in forecast:
        forecast["study"] = str(completed_study(models))
    with tempfile.TemporaryDirectory() as scratch:  # now, before Snakemake has much to say
        try:
            prepare_dataset(name, {"folder": folder}, Path(scratch), seed=0)
        except ForetuneError as error:
            where = "" if str(folder) in str(error) else f"{args.data}: "
            raise ForetuneError(f"{where}{error}") from None
    Path(TARGETS[-1]).unlink(missing_ok=True)  # an older answer is none to this question
    with atomic_write(STUDY) as beside:
        beside.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    command = [sys.executable, str(Path(__file__).with_name("run_study.py")), *TARGETS, *others]
    sys.stdout.flush()
    os.execv(sys.executable, [*command, "--study", str(STUDY)])


if __name__ == "__main__":
    cli.main(work)
