"""Forecast each model, method and dataset of a half-done study that has no outcome yet.

What is known comes from the fine-tuned models in results/, or from the file `outcomes` of the
study. Nothing is fine-tuned. Options that are not listed here are passed to Snakemake.
"""

import os
import sys
from pathlib import Path

from foretune.core import cli
from foretune.core.config import check_config, trains_on_embeddings
from foretune.core.errors import ForetuneError
from foretune.core.locks import lock_results
from foretune.core.study_file import read_study

TARGETS = [f"results/forecast/pairs.{kind}" for kind in ("csv", "txt", "html")]
TRIALS = Path("results/trials")


def has_outcomes(study: dict) -> bool:
    """Return whether a study, a checked config, has any outcome of fine-tuning."""
    if "outcomes" in study:
        return True
    return any(
        any(TRIALS.glob(f"{model}/{method}/{dataset}/*/best.json"))
        for method, recipe in study["methods"].items()
        if not trains_on_embeddings(method)
        for model in recipe["models"]
        for dataset in study["datasets"]
    )


def work() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_path_options(parser, study="config of the study")
    args, snakemake_options = parser.parse_known_args()
    if not has_outcomes(check_config(read_study(args.study))):
        raise ForetuneError(
            "give the images: make forecast DATA=path/to/folder; without DATA, the rest of a "
            f"half-done study is forecast, but {args.study} has no fine-tuned model in results/"
        )
    if not {"-n", "--dry-run", "--dryrun"} & set(snakemake_options):
        lock_results()  # or the answer of another run, which is still at work, would be taken away
        for target in TARGETS[1:]:  # otherwise a failed run would leave an older answer
            Path(target).unlink(missing_ok=True)
    run_study = str(Path(__file__).with_name("run_study.py"))
    sys.stdout.flush()
    options = [*TARGETS, *snakemake_options, "--study", str(args.study)]
    os.execv(sys.executable, [sys.executable, run_study, *options])


if __name__ == "__main__":
    cli.main(work)
