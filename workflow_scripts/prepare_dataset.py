"""Read a dataset's images from their source and write its fixed splits."""

from foretune.core import cli


def work() -> None:
    from foretune.data.notes import read_notes
    from foretune.data.prepare import prepare_dataset

    parser = cli.make_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the dataset in the config")
    parser.add_argument("--spec", type=cli.parse_json, required=True, help="config entry, as JSON")
    parser.add_argument("--seed", type=int, required=True, help="of the random splits")
    cli.add_path_options(parser, output="folder for the splits and dataset.json")
    args = parser.parse_args()
    manifest = prepare_dataset(args.name, args.spec, args.output, args.seed)
    counts = ", ".join(f"{facts['rows']} {split}" for split, facts in manifest["splits"].items())
    cli.log(f"{args.name}: {len(manifest['classes'])} classes; {counts}")
    for note in read_notes(args.output):
        cli.log(f"{args.name}: {note}")


if __name__ == "__main__":
    cli.main(work)
