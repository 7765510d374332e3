"""Rehearse a task on cached embeddings: cross-validate probes on its training images."""

from pathlib import Path

from foretune.core import cli


def work() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--model", required=True, help="name of the model in the config")
    parser.add_argument("--seed", type=int, required=True, help="of the folds")
    cli.add_path_options(
        parser,
        dataset="folder of the prepared dataset",
        embeddings="folder of the model's embeddings of it",
        output="JSON file",
    )
    parser.add_argument("--images", type=Path, required=True, help="Parquet file, a row per image")
    args = parser.parse_args()
    import pyarrow as pa

    from foretune.core.files import write_json
    from foretune.core.parquet import write_parquet
    from foretune.data.prepared import read_manifest
    from foretune.forecast.rehearsal import read_rehearsal_images, rehearse

    manifest = read_manifest(args.dataset)
    images, weights = read_rehearsal_images(args.embeddings, manifest)
    rehearsal, table = rehearse(images, args.seed)
    kind = {"kind": "rehearsal"}
    write_parquet(pa.Table.from_pandas(table, preserve_index=False), args.images, kind)
    facts = {"model": args.model, "dataset": manifest["name"], "weights": weights}
    write_json(facts | rehearsal, args.output)
    cli.log_measures(rehearsal)


if __name__ == "__main__":
    cli.main(work)
