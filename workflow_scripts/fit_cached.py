"""Train on cached embeddings (probes and adapters): all trials of the grid together."""

from foretune.core import cli


def work() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_run_options(parser)
    cli.add_path_options(
        parser,
        dataset="folder of the prepared dataset",
        embeddings="folder of the model's embedding caches of the dataset",
        output="folder for epochs.parquet, trained_weights.safetensors and best.json",
    )
    args = parser.parse_args()
    # Imported after the arguments are parsed, because torch takes seconds to load.
    from foretune.training.on_embeddings import fit_on_embeddings
    from foretune.training.trials import JobSpec

    job = JobSpec(cli.get_run(args), args.recipe, args.trials, args.seed, args.dataset, args.output)
    fit_on_embeddings(job, args.embeddings, cli.log)


if __name__ == "__main__":
    cli.main(work)
