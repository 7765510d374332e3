"""Rebuild one of the bundled datasets from its source."""

from pathlib import Path

from foretune import cli


def work() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--name", choices=["mnist", "fashion_mnist", "digits"], required=True)
    parser.add_argument("--archive", type=Path, help="where Debian's packages are unpacked")
    cli.add_paths(parser, output="Parquet to write")
    args = parser.parse_args()
    from foretune import bundles

    if args.name == "fashion_mnist":
        bundles.bundle_fashion_mnist(args.archive, args.output)
    elif args.name == "mnist":
        bundles.bundle_mnist(args.output)
    else:
        bundles.bundle_digits(args.output)


if __name__ == "__main__":
    cli.main(work)
