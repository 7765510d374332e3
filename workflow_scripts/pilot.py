"""Run a pilot: a few steps of fine-tuning on a part of the training images of a dataset."""

import json

from foretune.core import cli
from foretune.core.devices import take_devices


def work() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_run_options(parser)
    parser.add_argument("--steps", type=int, required=True, help="of the pilot")
    parser.add_argument("--model-spec", type=json.loads, required=True, help="config entry, JSON")
    cli.add_path_options(
        parser,
        dataset="folder of the prepared dataset",
        text="text.parquet of this model and dataset",
        prepared="folder where prepared images are kept",
        output="JSON file",
    )
    args = parser.parse_args()
    take_devices(1, cli.log)
    from foretune.core.files import write_json
    from foretune.training.pilot import run_pilot
    from foretune.training.trials import JobSpec

    run = cli.get_run(args)
    job = JobSpec(run, args.recipe, args.trials, args.seed, args.dataset, args.output.parent)
    pilot = run_pilot(job, args.steps, args.model_spec, args.text, args.prepared, cli.log)
    write_json(pilot, args.output)
    cli.log(
        f"{pilot['steps']} steps in {pilot['seconds']:.1f} s: accuracy {pilot['accuracy']:.3f} on "
        f"{pilot['n']} held-back training images"
    )


if __name__ == "__main__":
    cli.main(work)
