"""Forecast what fine-tuning would do to a folder of images with one subfolder a class.

The folder is checked, added to a copy of the study's config under `forecast`, and that study is
run for the forecast alone. Arguments that are not named here go to Snakemake.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import yaml

from foretune import cli
from foretune.config import check_config
from foretune.datasets import prepare_dataset
from foretune.files import ForetuneError, whole_file

STUDY = Path("results/forecast/study.yaml")
TARGETS = ["results/forecast/forecasts.csv", "results/forecast/rankings.csv"]


def work() -> None:
    parser = cli.parser(__doc__)
    cli.add_paths(parser, data="the folder of images", study="config of the study")
    args, others = parser.parse_known_args()
    folder = args.data.resolve()
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", folder.name).lstrip("_.-") or "folder"
    try:
        config = yaml.safe_load(args.study.read_text())
        config.setdefault("forecast", {}).setdefault("datasets", {})[name] = {"folder": str(folder)}
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise ForetuneError(f"{args.study}: not a readable study ({error})") from None
    check_config(config)
    with tempfile.TemporaryDirectory() as scratch:  # now, before Snakemake has much to say
        try:
            prepare_dataset(name, {"folder": folder}, Path(scratch), seed=0)
        except ForetuneError as error:
            raise ForetuneError(f"{args.data}: {error}") from None
    with whole_file(STUDY) as beside:
        beside.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    command = [sys.executable, str(Path(__file__).with_name("run_study.py")), *TARGETS, *others]
    sys.stdout.flush()
    os.execv(sys.executable, [*command, "--study", str(STUDY)])


if __name__ == "__main__":
    cli.main(work)
