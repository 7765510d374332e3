"""Rebuild one of the bundled datasets from its source."""

from foretune.core import cli


def work() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--name", required=True, help="the {name} of a function bundle_{name}")
    parser.add_argument("--module", required=True, help="its module, such as suite.bundles")
    parser.add_argument("--seed", type=int, required=True, help="seed of what is drawn")
    cli.add_path_options(
        parser, sources="folder with debian/ and npm/", output="Parquet file to write"
    )
    args = parser.parse_args()
    import importlib

    module = importlib.import_module(f"foretune.{args.module}")
    getattr(module, f"bundle_{args.name}")(args.sources, args.output, args.seed)


if __name__ == "__main__":
    cli.main(work)
