"""Embed every split of a dataset with a model and cache the vectors as Parquet."""

from foretune.core import cli
from foretune.core.devices import take_devices


def work() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument(
        "--model-spec", type=cli.parse_json, required=True, help="config entry, as JSON"
    )
    cli.add_path_options(
        parser,
        dataset="folder of the prepared dataset",
        prepared="folder of the cache of prepared images",
        output="folder for the caches",
    )
    parser.add_argument(
        "--shard", type=int, nargs=2, metavar=("K", "N"), help="embed part K of N, counted from 0"
    )
    parser.add_argument(
        "--pooled", action="store_true", help="write pooled outputs from before the projection"
    )
    cli.add_batch_option(parser)
    args = parser.parse_args()
    take_devices(1, cli.log)
    from foretune.encoders.encode import embed_images  # late, because torch takes seconds to load

    embed_images(
        args.model_spec, args.dataset, args.output, args.prepared, cli.log, args.shard,
        args.batch_size, args.pooled,
    )  # fmt: skip


if __name__ == "__main__":
    cli.main(work)
