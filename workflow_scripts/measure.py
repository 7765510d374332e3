"""Compute every measure of a task from its zero-shot train embeddings."""

import json
from pathlib import Path

from foretune.core import cli


def work() -> None:
    from foretune.core.files import write_json
    from foretune.data.prepared import read_manifest
    from foretune.encoders.streams import open_embedding_cache, read_matrix
    from foretune.measures.compute import MeasureOptions, measure_task

    parser = cli.make_parser(__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--options", type=json.loads, default={}, help="JSON, of measure_task")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument(
        "--emms-sources", type=Path, nargs="*", default=[], help="embeddings of the captions"
    )
    cli.add_path_options(
        parser, dataset="folder of the prepared dataset", embeddings="folder", output="JSON"
    )
    args = parser.parse_args()
    manifest = read_manifest(args.dataset)
    source, metadata = open_embedding_cache(args.embeddings, "train", manifest["digest"])
    labels = tuple(read_matrix(path) for path in args.emms_sources)
    options = MeasureOptions(**args.options)
    found = measure_task(source, args.seed, options, labels, manifest["classes"])
    facts = {"model": args.model, "dataset": manifest["name"], "weights": metadata["weights"]}
    write_json(facts | found, args.output)
    cli.log_measures(found)


if __name__ == "__main__":
    cli.main(work)
