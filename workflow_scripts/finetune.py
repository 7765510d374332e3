"""Fine-tune a model on a dataset: the trials of one method, resumed where a kill left them."""

import json

from foretune.core import cli
from foretune.core.devices import take_devices


def work() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_run_options(parser)
    parser.add_argument("--model-spec", type=json.loads, required=True, help="config entry, JSON")
    cli.add_path_options(
        parser,
        dataset="folder of the prepared dataset",
        text="text.parquet of this model and dataset",
        prepared="folder where prepared images are kept",
        output="folder for epochs.parquet, trained_weights.safetensors and best.json",
    )
    parser.add_argument("--gpus", type=int, default=1, help="a process each, on a CPU too")
    args = parser.parse_args()
    take_devices(args.gpus, cli.log)
    from foretune.training.distributed import launch
    from foretune.training.finetune import (
        finetune,  # after the arguments: torch takes seconds to load
    )

    launch(
        args.gpus, finetune, cli.get_run(args), args.model_spec, args.dataset, args.text,
        args.recipe, args.trials, args.seed, args.output, args.prepared, cli.log,
    )  # fmt: skip


if __name__ == "__main__":
    cli.main(work)
