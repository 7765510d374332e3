"""Draw the study's figures for papers as SVG files."""

from pathlib import Path

from foretune.core import cli


def work() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument(
        "--epochs", type=Path, nargs="*", default=[],
        help="Parquet files with the epochs of all trials",
    )  # fmt: skip
    parser.add_argument(
        "--models", nargs="+", required=True, help="models to draw the accuracies of"
    )
    cli.add_path_options(
        parser, analysis="folder with the tables of the analysis", output="folder for the figures"
    )
    args = parser.parse_args()
    from foretune.report.paper_figures import draw_figures

    draw_figures(args.analysis, args.epochs, args.models, args.output)


if __name__ == "__main__":
    cli.main(work)
