"""Evaluate a zero-shot model, or everything that one method made of a model, on every test."""

from pathlib import Path

from foretune.core import cli
from foretune.core.devices import take_devices


def work() -> None:
    parser = cli.make_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    zero_shot = commands.add_parser(
        "zero-shot", help="the base model on every test, from cached embeddings"
    )
    zero_shot.add_argument("--model", required=True, help="name of the model")
    probe = commands.add_parser(
        "probe", help="linear probes on the tests of their own tasks, from cached embeddings"
    )
    adapter = commands.add_parser(
        "adapter",
        help="CLIP-Adapters, and probes that start from captions, on every test, from cached "
        "embeddings",
    )
    tuned = commands.add_parser("model", help="fine-tuned models on every test")
    tuned.add_argument(
        "--model-spec", type=cli.parse_json, required=True, help="the model's config entry as JSON"
    )
    for command in (adapter, tuned):
        command.add_argument(
            "--wise-ft", type=float, nargs="*", default=[], help="WiSE-FT coefficients below 1"
        )
    cli.add_path_options(
        tuned,
        embeddings="folder of the base model's embeddings",
        prepared="folder that keeps prepared images",
        drift="output, Parquet: how far each checkpoint moved the embeddings of its task",
    )
    cli.add_batch_option(tuned)
    tuned.add_argument(
        "--temperature-scaling", action="store_true",
        help="fit a temperature on the validation images of each checkpoint's task",
    )  # fmt: skip
    tuned.add_argument("--code", required=True, help="digest of the evaluation's code")
    helps = {
        "selections": "best.json of each trained model",
        "manifests": "dataset.json of each test",
        "images": "image embeddings of each test",
        "texts": "caption embeddings of each test",
    }
    for command, lists in (
        (zero_shot, ("manifests", "images", "texts")),
        (probe, ("selections", "manifests", "images")),
        (adapter, ("selections", "manifests", "images", "texts")),
        (tuned, ("selections", "manifests", "texts")),
    ):
        for name in lists:
            command.add_argument(f"--{name}", type=Path, nargs="+", required=True, help=helps[name])
        if command is not tuned:
            command.add_argument(
                "--validation", type=Path, nargs="*", default=[],
                help="image embeddings of the validation images of each test's dataset, to fit "
                "temperatures on",
            )  # fmt: skip
        cli.add_path_options(
            command,
            predictions="folder that keeps the predictions",
            output="output, Parquet: one row per test",
            classes="output, Parquet: one row per class of a test",
            confusions="output, Parquet: one row per pair of true and predicted class",
        )
    args = parser.parse_args()
    from foretune.evaluation.scores import EvaluationOutputs, EvaluationTest

    names = ("images", "texts", "validation")
    lists = [vars(args).get(name) or [None] * len(args.manifests) for name in names]
    tests = [
        EvaluationTest(manifest.parent, *files)
        for manifest, *files in zip(args.manifests, *lists, strict=True)
    ]
    tables = args.predictions, args.output, args.classes, args.confusions
    if args.command == "model":
        take_devices(1, cli.log)
        from foretune.encoders.encode import ENCODE_BATCH
        from foretune.evaluation.finetuned import BaseModel, FineTunedOutputs, evaluate_model

        size = args.batch_size or ENCODE_BATCH
        base = BaseModel(args.model_spec, args.embeddings, args.prepared, size)
        outputs = FineTunedOutputs(*tables, args.drift)
        evaluate_model(args.selections, base, tests, outputs, args.code, args.wise_ft,
                       args.temperature_scaling, cli.log)  # fmt: skip
        return
    from foretune.evaluation import on_embeddings  # without torch, unlike the fine-tuned models

    outputs = EvaluationOutputs(*tables)
    if args.command == "zero-shot":
        on_embeddings.evaluate_zero_shot(args.model, tests, outputs)
    elif args.command == "probe":
        on_embeddings.evaluate_probe(args.selections, tests, outputs)
    else:
        on_embeddings.evaluate_adapter(args.selections, tests, outputs, args.wise_ft)


if __name__ == "__main__":
    cli.main(work)
