"""Train on cached embeddings (linear_probe, clip_adapter): all trials of the grid together."""

from foretune.core import cli


def work() -> None:
    parser = cli.parser(__doc__)
    cli.add_run(parser)
    cli.add_paths(
        parser,
        dataset="folder of the prepared dataset",
        embeddings="folder of its caches",
        output="folder for epochs.parquet, delta.safetensors and best.json",
    )
    args = parser.parse_args()
    from foretune.training.on_embeddings import (
        fit_cached,  # after the arguments: torch takes seconds to load
    )

    fit_cached(
        cli.run_of(args), args.dataset, args.embeddings, args.recipe, args.trials,
        args.seed, args.output, cli.log,
    )  # fmt: skip


if __name__ == "__main__":
    cli.main(work)
