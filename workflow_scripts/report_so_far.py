"""Write the report of what a study has so far, while it runs or after it was stopped.

It goes into results/so_far, with tables of its own, and says what is missing. Nothing of the study
is changed, and no job is run.
"""

from pathlib import Path

from foretune.core import cli
from foretune.core.config import check_config
from foretune.core.errors import ForetuneError
from foretune.core.study_file import read_study

RESULTS, OUTPUT = Path("results"), Path("results/so_far")
PAPER = Path(__file__).parents[1] / "studies/paper.yaml"


def work() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_path_options(parser, study="config of the study")
    args = parser.parse_args()
    study = check_config(read_study(args.study))
    if not RESULTS.is_dir():
        raise ForetuneError(f"{RESULTS.absolute()}: there are no results here; run the study first")
    from foretune.report.so_far import report_so_far

    missing = report_so_far(study, RESULTS, OUTPUT, PAPER)
    if missing is None:
        cli.log(
            "No report yet: no fine-tuned model is tested so far. It takes a method whose models "
            "of every dataset are trained and tested."
        )
        return
    for line in missing:
        cli.log(f"missing: {line}")
    cli.log(
        f"The report of {'what is there so far' if missing else 'the whole study'}: "
        f"{(OUTPUT / 'report.html').absolute()}"
    )


if __name__ == "__main__":
    cli.main(work)
