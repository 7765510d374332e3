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
    from foretune.wording import known

    forecasts, ranking = forecast_datasets(args.study, args.measures, args.weight)
    for name, frame in {"forecasts": forecasts, "rankings": ranking}.items():
        write_tables(frame, args.output / f"{name}.parquet", {"kind": name})
    said = forecasts.set_index(["dataset", "model", "method", "outcome"])
    for row in ranking[ranking["rank"].notna()].to_dict("records"):
        run = row["dataset"], row["model"], row["method"]
        parts = [
            f"{name.replace('_', ' ')} {cell.expected:.2f} ({cell.low:.2f} to {cell.high:.2f})"
            for name in ("gain_over_zero_shot_error", "ood_change")
            if known((cell := said.loc[(*run, name)]).expected)
        ]
        cli.log(f"{run[0]}: {row['rank']}. {run[1]}, {run[2]}: {', '.join(parts)}")


if __name__ == "__main__":
    cli.main(work)
