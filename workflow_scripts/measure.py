"""Compute every measure of a task from its zero-shot train embeddings."""

import math

from foretune import cli


def work() -> None:
    from foretune.datasets import read_manifest
    from foretune.embeddings import read_pair
    from foretune.files import write_json
    from foretune.measures import compute_measures

    parser = cli.parser(__doc__)
    parser.add_argument("--model", required=True)
    cli.add_paths(
        parser, dataset="folder of the prepared dataset", embeddings="folder", output="JSON"
    )
    args = parser.parse_args()
    manifest = read_manifest(args.dataset)
    images, texts = read_pair(args.embeddings, "train", manifest["digest"])
    values = compute_measures(images.vectors, texts.vectors, images.columns["label"])
    write_json(
        {
            "model": args.model,
            "dataset": manifest["name"],
            "n": len(images.vectors),
            "weights": images.metadata["weights"],
            "measures": {k: v if math.isfinite(v) else None for k, v in values.items()},
        },
        args.output,
    )
    cli.log("  ".join(f"{name} {value:.4f}" for name, value in values.items()))


if __name__ == "__main__":
    cli.main(work)
