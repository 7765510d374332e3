"""Join measures with outcomes: tidy tables, correlations and fits."""

from pathlib import Path

from foretune import cli


def work() -> None:
    parser = cli.parser(__doc__)
    for name in ("evaluations", "classes", "selections", "measures"):
        parser.add_argument(f"--{name}", type=Path, nargs="+", required=True)
    parser.add_argument("--movements", type=Path, nargs="*", default=[])
    parser.add_argument("--seed", type=int, required=True)
    cli.add_paths(parser, output="folder for the tables")
    args = parser.parse_args()
    from foretune.analyze import analyze

    analyze(
        args.evaluations, args.classes, args.movements, args.selections, args.measures,
        args.output, args.seed,
    )  # fmt: skip


if __name__ == "__main__":
    cli.main(work)
