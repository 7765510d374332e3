"""Write the report of a study as one self-contained HTML file, and its provenance as JSON."""

from pathlib import Path

from foretune.core import cli


def work() -> None:
    parser = cli.make_parser(__doc__)
    for name, text in [
        ("epochs", "Parquet files with the epochs of all trials"),
        ("datasets", "manifests of the datasets and of their shifted tests"),
        ("measures", "JSON files with the measures of each model and dataset"),
    ]:
        parser.add_argument(f"--{name}", type=Path, nargs="*", default=[], help=text)
    parser.add_argument(
        "--config", type=cli.parse_json, required=True, help="study's config as JSON"
    )
    parser.add_argument("--forecast", type=Path, help="folder with forecasts, if there are any")
    cli.add_path_options(
        parser, analysis="folder with the tables of the analysis",
        provenance="JSON file to write", output="HTML file to write",
    )  # fmt: skip
    args = parser.parse_args()
    from foretune.report.build import build_report
    from foretune.report.provenance import write_provenance

    write_provenance(args.config, args.datasets, args.measures, args.provenance)
    build_report(
        args.analysis, args.epochs, args.datasets, args.provenance, args.output,
        args.config["title"], args.forecast,
    )  # fmt: skip


if __name__ == "__main__":
    cli.main(work)
