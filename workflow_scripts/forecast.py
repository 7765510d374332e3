"""Forecast what fine-tuning would do to datasets that were only measured."""

from pathlib import Path

from foretune import cli


def work() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--measures", type=Path, nargs="+", required=True, help="JSON of each (model, dataset)"
    )
    parser.add_argument(
        "--weight", type=float, required=True, help="of forgetting against gain, 0 to 1"
    )
    cli.add_paths(parser, study="a study's results/analysis", output="folder for the tables")
    args = parser.parse_args()
    from foretune.analyze import write_tables
    from foretune.forecast import forecast_datasets

    forecasts, ranking = forecast_datasets(args.study, args.measures, args.weight)
    for name, frame in {"forecasts": forecasts, "rankings": ranking}.items():
        write_tables(frame, args.output / f"{name}.parquet", {"kind": name})
    for row in ranking[ranking["rank"] == 1].to_dict("records"):
        cli.log(f"{row['dataset']}: {row['model']}, {row['method']}: expected gain over the "
                f"zero-shot error {row['gain_over_zero_shot_error']:.2f}")  # fmt: skip


if __name__ == "__main__":
    cli.main(work)
