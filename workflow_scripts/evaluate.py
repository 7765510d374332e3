"""Accuracy on every test of a zero-shot model, or of all that one method made of a model."""

import json
from pathlib import Path

from foretune.core import cli
from foretune.core.devices import take_devices


def work() -> None:
    parser = cli.make_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    zero_shot = commands.add_parser("zero-shot", help="from cached embeddings")
    zero_shot.add_argument("--model", required=True)
    probe = commands.add_parser("probe", help="on its own task's tests, from cached embeddings")
    adapter = commands.add_parser("adapter", help="on every test, from cached embeddings")
    tuned = commands.add_parser("model", help="fine-tuned models on every test")
    tuned.add_argument("--model-spec", type=json.loads, required=True, help="config entry, JSON")
    tuned.add_argument("--wise-ft", type=float, nargs="*", default=[], help="coefficients below 1")
    cli.add_path_options(
        tuned,
        embeddings="folder of the base model's embeddings",
        prepared="folder where prepared images are kept",
        drift="Parquet, a row a checkpoint: how far it moved its task's embeddings",
    )
    tuned.add_argument("--code", required=True, help="digest of the evaluation's code")
    for command, lists in (
        (zero_shot, ("manifests", "images", "texts")),
        (probe, ("selections", "manifests", "images")),
        (adapter, ("selections", "manifests", "images", "texts")),
        (tuned, ("selections", "manifests", "texts")),
    ):
        for name in lists:
            text = "dataset.json of each test" if name == "manifests" else "a file for each"
            command.add_argument(f"--{name}", type=Path, nargs="+", required=True, help=text)
        cli.add_path_options(
            command,
            predictions="folder of the predictions that are kept",
            output="Parquet, a row a test",
            classes="Parquet, a row a class of a test",
            confusions="Parquet, a row for two classes of which one was taken for the other",
        )
    args = parser.parse_args()
    tests = [manifest.parent for manifest in args.manifests]
    names = ("predictions", "output", "classes", "confusions")
    to = {name: getattr(args, name) for name in names}
    if args.command == "model":
        take_devices(1, cli.log)
        from foretune.evaluation.finetuned import evaluate_model

        evaluate_model(
            args.selections, args.model_spec, args.wise_ft, tests, args.texts,
            args.embeddings, args.prepared, code=args.code, drift=args.drift,
            log=cli.log, **to,
        )  # fmt: skip
        return
    from foretune.evaluation import on_embeddings  # the others need no torch

    if args.command == "zero-shot":
        on_embeddings.evaluate_zero_shot(args.model, tests, args.images, args.texts, **to)
    elif args.command == "probe":
        on_embeddings.evaluate_probe(args.selections, tests, args.images, **to)
    else:
        on_embeddings.evaluate_adapter(args.selections, tests, args.images, args.texts, **to)


if __name__ == "__main__":
    cli.main(work)
