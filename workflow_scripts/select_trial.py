"""Choose the best trial of a method by validation accuracy, over the parts of its grid."""

from pathlib import Path

from foretune.core import cli


def work() -> None:
    from foretune.training.trials import select_trial

    parser = cli.make_parser(__doc__)
    parser.add_argument(
        "--parts", type=Path, nargs="+", required=True, help="best.json of each part"
    )
    cli.add_path_options(parser, output="JSON that names the selected weights and their sha256")
    args = parser.parse_args()
    select_trial(args.parts, args.output)


if __name__ == "__main__":
    cli.main(work)
