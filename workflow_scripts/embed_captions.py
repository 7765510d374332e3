"""Embed the class captions of a dataset with a model."""

import shutil
from pathlib import Path

from foretune.core import cli
from foretune.core.devices import take_devices


def work() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument(
        "--model-spec", type=cli.parse_json, required=True, help="config entry, as JSON"
    )
    parser.add_argument(
        "--caption",
        type=cli.parse_json,
        help="caption with {} or a list of them, or a file, as JSON; null takes the dataset's own",
    )
    parser.add_argument(
        "--own",
        type=Path,
        nargs="*",
        help="file of the own captions' embeddings, to copy instead of loading the model",
    )
    cli.add_path_options(parser, dataset="folder of the prepared dataset", output="Parquet file")
    args = parser.parse_args()
    if args.own:  # embed_images has embedded them; loading torch would take seconds
        from foretune.core.files import atomic_write

        with atomic_write(args.output) as beside:
            shutil.copyfile(args.own[0], beside)
        return
    take_devices(0)  # too little work to occupy a GPU
    from foretune.encoders.encode import embed_captions

    embed_captions(args.model_spec, args.dataset, args.caption, args.output, cli.log)


if __name__ == "__main__":
    cli.main(work)
