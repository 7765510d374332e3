"""Embed the class captions of a dataset by a model."""

import json
import shutil
from pathlib import Path

from foretune.core import cli
from foretune.core.devices import take_devices


def work() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--model-spec", type=json.loads, required=True, help="config entry, JSON")
    parser.add_argument(
        "--template", type=json.loads, default=None, help="caption with {}, JSON; null: its own"
    )
    parser.add_argument("--own", type=Path, nargs="*", help="vectors of the dataset's own captions")
    cli.add_path_options(parser, dataset="folder of the prepared dataset", output="text.parquet")
    args = parser.parse_args()
    if args.own:  # they came with the images' vectors, and torch takes seconds to load
        from foretune.core.files import atomic_write

        with atomic_write(args.output) as beside:
            shutil.copyfile(args.own[0], beside)
        return
    take_devices(0)  # too little work for a GPU, which another job may have
    from foretune.encoders.encode import embed_captions

    embed_captions(args.model_spec, args.dataset, args.template, args.output)


if __name__ == "__main__":
    cli.main(work)
