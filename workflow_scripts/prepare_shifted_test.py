"""Prepare a shifted test of a dataset: images of the same classes from another source."""

from foretune.core import cli


def work() -> None:
    from foretune.data.notes import read_notes
    from foretune.data.prepare import prepare_shifted_test
    from foretune.data.prepared import get_dataset_title

    parser = cli.make_parser(__doc__)
    parser.add_argument("--shift", required=True, help="name of the test in the config")
    parser.add_argument("--spec", type=cli.parse_json, required=True, help="config entry, as JSON")
    cli.add_path_options(
        parser, parent="folder of the prepared dataset", output="folder for the test"
    )
    args = parser.parse_args()
    manifest = prepare_shifted_test(args.shift, args.spec, args.parent, args.output)
    cli.log(f"{get_dataset_title(manifest)}: {manifest['splits']['test']['rows']} images")
    for note in read_notes(args.output):
        cli.log(f"{get_dataset_title(manifest)}: {note}")


if __name__ == "__main__":
    cli.main(work)
