"""Join measures with outcomes: tidy tables, correlations and fits."""

import json
from pathlib import Path

from foretune.core import cli


def work() -> None:
    parser = cli.make_parser(__doc__)
    for name in ("evaluations", "classes", "confusions", "selections", "measures"):
        parser.add_argument(f"--{name}", type=Path, nargs="+", required=True)
    parser.add_argument("--drifts", type=Path, nargs="*", default=[])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--models", type=json.loads, required=True, help="config entries, JSON")
    parser.add_argument("--datasets", nargs="+", required=True, help="names")
    cli.add_path_options(
        parser, paper="config of the paper's study", output="folder for the tables"
    )
    args = parser.parse_args()
    from foretune.analysis.paper_tables import identify_paper_study
    from foretune.analysis.study_tables import analyze_study

    analyze_study(
        args.evaluations, args.classes, args.confusions, args.drifts, args.selections,
        args.measures, args.output, args.seed,
        identify_paper_study(args.models, args.datasets, args.paper),
    )  # fmt: skip


if __name__ == "__main__":
    cli.main(work)
