"""Test-split accuracy of a zero-shot model, a linear probe, or a tuned model on every dataset."""

import json
from pathlib import Path

from foretune import cli


def work() -> None:
    parser = cli.parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    zero_shot = commands.add_parser("zero-shot", help="from cached embeddings")
    zero_shot.add_argument("--model", required=True)
    cli.add_paths(zero_shot, dataset="folder", embeddings="folder", output="Parquet")
    probe = commands.add_parser("probe", help="on its own task, from cached embeddings")
    cli.add_paths(probe, best="selection", dataset="folder", embeddings="folder", output="Parquet")
    tuned = commands.add_parser("model", help="a fine-tuned model on every dataset")
    tuned.add_argument("--model-spec", type=json.loads, required=True, help="config entry, JSON")
    tuned.add_argument("--datasets", type=Path, nargs="+", required=True, help="folders")
    tuned.add_argument("--texts", type=Path, nargs="+", required=True, help="text.parquet of each")
    tuned.add_argument("--code", required=True, help="digest of the evaluation's code")
    cli.add_paths(tuned, best="selection", predictions="folder", output="Parquet")
    args = parser.parse_args()
    if args.command == "model":
        from foretune.evaluate_model import evaluate_model

        evaluate_model(
            args.best, args.model_spec, args.datasets, args.texts, args.predictions, args.code,
            args.output, cli.log,
        )  # fmt: skip
        return
    from foretune import evaluate  # the other two need no torch

    if args.command == "zero-shot":
        evaluate.evaluate_zero_shot(args.model, args.dataset, args.embeddings, args.output)
    else:
        evaluate.evaluate_probe(args.best, args.dataset, args.embeddings, args.output)


if __name__ == "__main__":
    cli.main(work)
