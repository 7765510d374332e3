"""Forecast what fine-tuning would do to datasets that were measured but not fine-tuned."""

from pathlib import Path

from foretune.core import cli


def work() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument(
        "--measures",
        type=Path,
        nargs="+",
        required=True,
        help="JSON files of measures, one per (model, dataset)",
    )
    parser.add_argument(
        "--weight",
        type=float,
        required=True,
        help="weight of forgetting in the ranking, from 0 (only gain counts) to 1",
    )
    cli.add_path_options(
        parser, study="results/analysis folder of a study", output="folder for the tables"
    )
    args = parser.parse_args()
    from foretune.analysis.study_tables import write_tables
    from foretune.core.files import atomic_write
    from foretune.forecast.forecast import forecast_datasets
    from foretune.forecast.text import describe_forecasts

    forecasts, rankings = forecast_datasets(args.study, args.measures, args.weight)
    for name, frame in {"forecasts": forecasts, "rankings": rankings}.items():
        write_tables(frame, args.output / f"{name}.parquet", {"kind": name})
    path = args.output / "forecast.txt"
    with atomic_write(path) as beside:
        beside.write_text(describe_forecasts(forecasts, rankings))
    cli.log(f"Wrote {len(forecasts)} forecasts; {path} summarizes them")


if __name__ == "__main__":
    cli.main(work)
