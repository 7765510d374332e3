"""Fine-tune a model on a dataset: the trials of one method, resumed after a kill."""

from foretune.core import cli
from foretune.core.devices import take_devices


def work() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_run_options(parser)
    parser.add_argument(
        "--model-spec", type=cli.parse_json, required=True, help="config entry, JSON"
    )
    cli.add_path_options(
        parser,
        dataset="folder of the prepared dataset",
        text="text.parquet of this model and dataset",
        prepared="folder where prepared images are kept",
        output="folder for epochs.parquet, trained_weights.safetensors and best.json",
    )
    parser.add_argument(
        "--gpus", type=int, default=1, help="number of processes, one per GPU; also on a CPU"
    )
    args = parser.parse_args()
    take_devices(args.gpus, cli.log)
    # Imported after the arguments are parsed, because torch takes seconds to load.
    from foretune.training.finetune import finetune
    from foretune.training.trials import JobSpec

    job = JobSpec(cli.get_run(args), args.recipe, args.trials, args.seed, args.dataset, args.output)
    finetune(job, args.model_spec, args.text, args.prepared, cli.log, args.gpus)


if __name__ == "__main__":
    cli.main(work)
