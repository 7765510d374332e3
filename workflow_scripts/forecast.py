"""Forecast what fine-tuning would do to datasets that were only measured."""

from pathlib import Path

from foretune.core import cli


def work() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument(
        "--measures", type=Path, nargs="+", required=True, help="JSON of each (model, dataset)"
    )
    parser.add_argument(
        "--weight", type=float, required=True, help="of forgetting against gain, 0 to 1"
    )
    cli.add_path_options(parser, study="a study's results/analysis", output="folder for the tables")
    args = parser.parse_args()
    from foretune.analysis.study_tables import write_tables
    from foretune.core.files import atomic_write
    from foretune.forecast.forecast import describe_forecasts, forecast_datasets

    forecasts, ranking = forecast_datasets(args.study, args.measures, args.weight)
    for name, frame in {"forecasts": forecasts, "rankings": ranking}.items():
        write_tables(frame, args.output / f"{name}.parquet", {"kind": name})
    path = args.output / "forecast.txt"
    with atomic_write(path) as beside:
        beside.write_text(describe_forecasts(forecasts, ranking))
    cli.log(f"{len(forecasts)} forecasts; in words: {path}")


if __name__ == "__main__":
    cli.main(work)
