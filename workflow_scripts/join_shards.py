"""Join the embeddings of a dataset's shards into one file per split."""

from pathlib import Path

from foretune.core import cli


def work() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument(
        "--shards", type=Path, nargs="+", required=True, help="folders, in the order of the shards"
    )
    cli.add_path_options(parser, output="folder for the caches")
    args = parser.parse_args()
    from foretune.encoders.shards import join_shards

    join_shards(args.shards, args.output)


if __name__ == "__main__":
    cli.main(work)
