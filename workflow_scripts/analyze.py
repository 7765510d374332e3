"""Join measures with outcomes, and write a study's tables, correlations, fits and findings."""

from pathlib import Path

from foretune.core import cli

FILE_OPTIONS = {
    "evaluations": "Parquet files of accuracies on every test",
    "classes": "Parquet files of accuracies per class",
    "confusions": "Parquet files of confused classes",
    "selections": "JSON files of the selected trials",
    "drifts": "Parquet files of embedding drift",
    "measures": "JSON files of measures",
    "rehearsals": "JSON files of rehearsals",
    "pilots": "JSON files of pilots",
    "manifests": "manifests of the tests, to know the chance level of accuracies from elsewhere",
}


def work() -> None:
    parser = cli.make_parser(__doc__)
    for name, text in FILE_OPTIONS.items():
        parser.add_argument(f"--{name}", type=Path, nargs="*", default=[], help=text)
    parser.add_argument(
        "--outcomes", type=Path, nargs="?", help="CSV file of accuracies from elsewhere"
    )
    parser.add_argument(
        "--seed", type=int, required=True, help="of the permutations and the bootstrap"
    )
    parser.add_argument(
        "--models",
        type=cli.parse_json,
        required=True,
        help="the config's entries under models, JSON",
    )
    parser.add_argument("--datasets", nargs="+", required=True, help="names of the datasets")
    cli.add_path_options(
        parser, paper="config of the paper's study", output="folder for the tables"
    )
    args = parser.parse_args()
    from foretune.analysis.paper_tables import identify_paper_study
    from foretune.analysis.study_tables import StudyFiles, analyze_study

    files = StudyFiles(
        **{name: getattr(args, name) for name in FILE_OPTIONS}, outcomes=args.outcomes
    )
    studies = identify_paper_study(args.models, args.datasets, args.paper)
    analyze_study(files, args.models, studies, args.seed, args.output)


if __name__ == "__main__":
    cli.main(work)
