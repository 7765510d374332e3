"""Forecast each model, method and dataset of a half-done study that has no outcome yet."""

from pathlib import Path

from foretune.core import cli

FILE_OPTIONS = {
    "evaluations": "Parquet files of the accuracies that are known",
    "selections": "JSON files of selected trials, which say what diverged",
    "measures": "JSON files of measures",
    "rehearsals": "JSON files of rehearsals",
    "pilots": "JSON files of pilots",
    "manifests": "manifests of the tests of accuracies from elsewhere",
}


def work() -> None:
    parser = cli.make_parser(__doc__)
    for name, text in FILE_OPTIONS.items():
        parser.add_argument(f"--{name}", type=Path, nargs="*", default=[], help=text)
    parser.add_argument(
        "--outcomes", type=Path, nargs="?", help="CSV file of accuracies from elsewhere"
    )
    parser.add_argument("--runs", nargs="+", required=True, help="each model/method of the study")
    parser.add_argument("--datasets", nargs="+", required=True, help="names of the datasets")
    cli.add_path_options(parser, output="folder for the tables")
    args = parser.parse_args()
    from foretune.analysis.study_tables import StudyFiles, tabulate_tasks
    from foretune.analysis.table_files import write_tables
    from foretune.core.files import atomic_write
    from foretune.forecast.pairs import forecast_pairs
    from foretune.forecast.text import describe_pairs

    files = {name: getattr(args, name) for name in FILE_OPTIONS}
    study = tabulate_tasks(StudyFiles(**files, classes=[], confusions=[], outcomes=args.outcomes))
    runs = [(model, method) for model, _, method in (run.partition("/") for run in args.runs)]
    tables = forecast_pairs(study, runs, args.datasets)
    for name in ("pairs", "pair_candidates"):
        write_tables(getattr(tables, name), args.output / f"{name}.parquet", {"kind": name})
    path = args.output / "pairs.txt"
    with atomic_write(path) as beside:
        beside.write_text(describe_pairs(tables))
    count = (tables.pairs.outcome == "accuracy").sum()
    cli.log(f"Wrote the forecasts of {count} pairs; {path} summarizes them")


if __name__ == "__main__":
    cli.main(work)
