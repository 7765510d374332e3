"""Write the page of a half-done study's other half as one self-contained HTML file."""

from foretune.core import cli


def work() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_path_options(
        parser, forecast="folder with the tables of the pairs", output="HTML file to write"
    )
    args = parser.parse_args()
    from foretune.report.pairs_page import build_pairs_page

    build_pairs_page(args.forecast, args.output)
    cli.log(f"Wrote {args.output}")


if __name__ == "__main__":
    cli.main(work)
