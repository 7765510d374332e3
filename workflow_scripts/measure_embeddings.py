"""Compute every measure of embeddings that come from elsewhere, as Parquet or .npy files."""

import json
from pathlib import Path

from foretune.core import cli


def work() -> None:
    from foretune.core.files import digest_file, write_json
    from foretune.encoders.streams import FileSource
    from foretune.measures.compute import MeasureOptions, measure_task

    parser = cli.make_parser(__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--labels", type=Path, help="where the images' file has none")
    parser.add_argument("--options", type=json.loads, default={}, help="JSON, of measure_task")
    parser.add_argument("--seed", type=int, required=True)
    cli.add_path_options(
        parser, images="embeddings", texts="embeddings, one a class", output="JSON"
    )
    args = parser.parse_args()
    files = [path for path in (args.images, args.texts, args.labels) if path]
    found = measure_task(
        FileSource(args.images, args.texts, args.labels), args.seed, MeasureOptions(**args.options)
    )
    facts = {"embeddings": args.name, "files": {str(path): digest_file(path) for path in files}}
    write_json(facts | found, args.output)
    cli.log_measures(found)


if __name__ == "__main__":
    cli.main(work)
