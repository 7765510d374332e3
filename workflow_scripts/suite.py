"""Index, compare and show the bundled suite of tasks and mini encoders; make the package tasks."""

import yaml

from foretune.core import cli


def work() -> None:
    parser = cli.make_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    index = commands.add_parser("index", help="write origins and pixel digests of the corpus")
    cli.add_path_options(index, corpus="Parquet file", output="Parquet file to write")
    for part, how in (("data", "by their bytes"), ("encoders", "by their zero-shot accuracies")):
        compare = commands.add_parser(f"compare-{part}", help=f"compare rebuilt {part} {how}")
        cli.add_path_options(compare, rebuilt="folder", bundled="folder")
    zero_shot = commands.add_parser("zero-shot", help="accuracy of each encoder on each task")
    cli.add_path_options(zero_shot, bundled="folder")
    picture = commands.add_parser("picture", help="draw a row of test images for each task")
    cli.add_path_options(picture, bundled="folder", output="PNG to write")
    tasks = commands.add_parser("package-tasks", help="make the forecast study's tasks")
    cli.add_path_options(
        tasks,
        pins="list of packages",
        packages="folder to download packages to",
        output="folder to write, with a folder per task",
    )
    study = commands.add_parser("study", help="keep a study's results for forecasts")
    cli.add_path_options(
        study, results="the study's folder", config="its config", output="folder to write"
    )
    args = parser.parse_args()
    if args.command == "index":
        from foretune.suite.leak_check import index_corpus

        index_corpus(args.corpus, args.output)
        return
    if args.command == "package-tasks":
        from foretune.suite.package_tasks import STUDY, describe_tasks, make_tasks

        print(describe_tasks(make_tasks(STUDY, args.pins, args.packages, args.output)))
        return
    from foretune.suite import compare as suite

    if args.command == "picture":
        suite.draw_overview(args.bundled, args.output)
    elif args.command == "study":
        suite.bundle_study(args.results, yaml.safe_load(args.config.read_text()), args.output)
    elif args.command == "zero-shot":
        print(suite.zero_shot_table(args.bundled))
    elif args.command == "compare-data":
        print(suite.compare_data(args.rebuilt, args.bundled))
    else:
        print(suite.compare_encoders(args.rebuilt, args.bundled))


if __name__ == "__main__":
    cli.main(work)
