"""Forecast what fine-tuning would do to datasets that were rehearsed but not fine-tuned."""

from pathlib import Path

from foretune.core import cli

FILE_OPTIONS = {
    "measures": "JSON files of measures, one per (model, dataset)",
    "rehearsals": "JSON files of the rehearsals of the same",
    "tests": "Parquet files of the accuracies on the datasets that need no forecast",
}
NOTES_HELP = "notes.json of the prepared datasets, each in a folder of the dataset's name"


def work() -> None:
    parser = cli.make_parser(__doc__)
    for name, text in FILE_OPTIONS.items():
        parser.add_argument(f"--{name}", type=Path, nargs="+", required=True, help=text)
    parser.add_argument("--notes", type=Path, nargs="*", default=[], help=NOTES_HELP)
    parser.add_argument(
        "--pilots", type=Path, nargs="*", default=[], help="JSON files of pilots on the same"
    )
    parser.add_argument(
        "--weight",
        type=float,
        required=True,
        help="weight of forgetting in the ranking, from 0 (only accuracy counts) to 1",
    )
    cli.add_path_options(
        parser, study="results/analysis folder of a study", output="folder for the tables"
    )
    args = parser.parse_args()
    from foretune.analysis.table_files import write_tables
    from foretune.core.files import atomic_write
    from foretune.data.notes import read_notes
    from foretune.forecast.forecast import forecast_datasets
    from foretune.forecast.inputs import read_new_tasks
    from foretune.forecast.text import describe_forecasts

    new = read_new_tasks(args.measures, args.rehearsals, args.tests, args.pilots)
    tables = forecast_datasets(args.study, new, args.weight)
    for name, frame in vars(tables).items():
        write_tables(frame, args.output / f"{name}.parquet", {"kind": name})
    path = args.output / "forecast.txt"
    with atomic_write(path) as beside:
        notes = {path.parent.name: read_notes(path.parent) for path in args.notes}
        beside.write_text(describe_forecasts(tables, notes))
    cli.log(f"Wrote {len(tables.forecasts)} forecasts; {path} summarizes them")


if __name__ == "__main__":
    cli.main(work)
