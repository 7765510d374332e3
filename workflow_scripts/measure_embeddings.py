"""Compute all measures of embeddings in Parquet or .npy files that were computed elsewhere."""

from pathlib import Path

from foretune.core import cli


def work() -> None:
    from foretune.core.files import digest_file, write_json
    from foretune.encoders.streams import FileSource
    from foretune.measures.compute import MeasureOptions, measure_task

    parser = cli.make_parser(__doc__)
    parser.add_argument("--name", required=True, help="name of the embeddings in the config")
    parser.add_argument(
        "--labels", type=Path, help="file of the labels, unless the images' file has them"
    )
    parser.add_argument(
        "--options", type=cli.parse_json, default={}, help="of the measures, as JSON"
    )
    parser.add_argument("--seed", type=int, required=True, help="of the random subsets")
    cli.add_path_options(
        parser,
        images="file of image embeddings",
        texts="file of caption embeddings, one row per class",
        output="JSON file",
    )
    args = parser.parse_args()
    files = [path for path in (args.images, args.texts, args.labels) if path]
    source = FileSource(args.images, args.texts, args.labels)
    measured = measure_task(source, args.seed, MeasureOptions(**args.options))
    facts = {"embeddings": args.name, "files": {str(path): digest_file(path) for path in files}}
    write_json(facts | measured, args.output)
    cli.log_measures(measured)


if __name__ == "__main__":
    cli.main(work)
