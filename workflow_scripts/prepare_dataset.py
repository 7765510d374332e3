"""Turn a source into the fixed splits of a dataset."""

import json

from foretune.core import cli


def work() -> None:
    from foretune.data.prepare import prepare_dataset

    parser = cli.make_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the dataset in the config")
    parser.add_argument("--spec", type=json.loads, required=True, help="its entry, as JSON")
    parser.add_argument("--seed", type=int, required=True)
    cli.add_path_options(parser, output="folder for the splits and dataset.json")
    args = parser.parse_args()
    manifest = prepare_dataset(args.name, args.spec, args.output, args.seed)
    counts = ", ".join(f"{v['rows']} {split}" for split, v in manifest["splits"].items())
    cli.log(f"{args.name}: {len(manifest['classes'])} classes; {counts}")


if __name__ == "__main__":
    cli.main(work)
