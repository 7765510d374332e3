"""Write the page of a forecast as one self-contained HTML file."""

from foretune.core import cli


def work() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_path_options(
        parser,
        forecast="folder with the tables of the forecast",
        rehearsals="folder with the rehearsals, {model}/{dataset}.json",
        datasets="folder with the prepared datasets",
        tasks="Parquet table of the tasks of the study that the forecast rests on",
        output="HTML file to write",
    )
    args = parser.parse_args()
    from foretune.report.forecast_page import build_forecast_page

    build_forecast_page(args.forecast, args.rehearsals, args.datasets, args.tasks, args.output)
    cli.log(f"Wrote {args.output}")


if __name__ == "__main__":
    cli.main(work)
