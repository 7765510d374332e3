"""Draw the study's figures for papers, as SVG."""

from pathlib import Path

from foretune.core import cli


def work() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--epochs", type=Path, nargs="+", required=True)
    parser.add_argument("--models", nargs="+", required=True, help="names")
    cli.add_path_options(parser, analysis="folder of tables", output="folder for the figures")
    args = parser.parse_args()
    from foretune.report.paper_figures import draw_figures

    draw_figures(args.analysis, args.epochs, args.models, args.output)


if __name__ == "__main__":
    cli.main(work)
