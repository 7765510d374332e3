"""Compute all measures of a task from the zero-shot embeddings of its train split."""

from pathlib import Path

from foretune.core import cli


def work() -> None:
    from foretune.core.files import write_json
    from foretune.data.prepared import read_manifest
    from foretune.encoders.cache import read_embeddings
    from foretune.encoders.captions import note_equal_captions
    from foretune.encoders.streams import open_embedding_cache, read_matrix
    from foretune.measures.compute import MeasureOptions, measure_task

    parser = cli.make_parser(__doc__)
    parser.add_argument("--model", required=True, help="name of the model in the config")
    parser.add_argument(
        "--options", type=cli.parse_json, default={}, help="of the measures, as JSON"
    )
    parser.add_argument("--seed", type=int, required=True, help="of the random subsets")
    parser.add_argument(
        "--emms-sources",
        type=Path,
        nargs="*",
        default=[],
        help="caption embeddings by other models",
    )
    cli.add_path_options(
        parser,
        dataset="folder of the prepared dataset",
        embeddings="folder of the model's embeddings of it",
        output="JSON file",
    )
    args = parser.parse_args()
    manifest = read_manifest(args.dataset)
    embeddings, metadata = open_embedding_cache(args.embeddings, "train", manifest["digest"])
    emms_sources = tuple(read_matrix(path) for path in args.emms_sources)
    options = MeasureOptions(**args.options)
    measured = measure_task(embeddings, args.seed, options, emms_sources, manifest["classes"])
    same = read_embeddings(args.embeddings / "text.parquet").columns.get("same_tokens_as")
    measured["notes"] += note_equal_captions(same, manifest["classes"])
    facts = {"model": args.model, "dataset": manifest["name"], "weights": metadata["weights"]}
    facts["revision"] = metadata.get("revision")
    write_json(facts | measured, args.output)
    cli.log_measures(measured)


if __name__ == "__main__":
    cli.main(work)
