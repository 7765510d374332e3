"""Train on cached embeddings (linear_probe, clip_adapter): all trials of the grid together."""

from foretune.core import cli


def work() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_run_options(parser)
    cli.add_path_options(
        parser,
        dataset="folder of the prepared dataset",
        embeddings="folder of its caches",
        output="folder for epochs.parquet, trained_weights.safetensors and best.json",
    )
    args = parser.parse_args()
    from foretune.training.on_embeddings import (
        fit_on_embeddings,  # after the arguments: torch takes seconds to load
    )

    fit_on_embeddings(
        cli.get_run(args), args.dataset, args.embeddings, args.recipe, args.trials,
        args.seed, args.output, cli.log,
    )  # fmt: skip


if __name__ == "__main__":
    cli.main(work)
