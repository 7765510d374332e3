"""Render the captioned corpus of the mini encoders, or train an encoder on it from scratch."""

from foretune.core import cli


def work() -> None:
    parser = cli.make_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    corpus = commands.add_parser("corpus", help="render pictograms, characters and drawings")
    corpus.add_argument("--seed", type=int, required=True, help="seed of the drawings")
    cli.add_path_options(corpus, packages="node_modules folder", output="Parquet file to write")
    encoder = commands.add_parser("encoder", help="train; resumes after it was killed")
    encoder.add_argument("--seed", type=int, required=True, help="seed of weights and batches")
    cli.add_path_options(
        encoder,
        corpus="Parquet file",
        architecture="open_clip_config.json",
        output="model folder to write",
    )
    args = parser.parse_args()
    if args.command == "corpus":
        from foretune.suite.corpus import build_corpus

        build_corpus(args.packages, args.output, args.seed)
        return
    from foretune.core.files import write_json
    from foretune.core.locks import exclusive_lock
    from foretune.suite.pretrain import build_vocabulary, pretrain

    with exclusive_lock(args.output):
        build_vocabulary(args.corpus, args.architecture, args.output)
        state = args.output / "state.pt"
        history = pretrain(args.output, args.corpus, state, args.seed, cli.log)
        write_json(history, args.output / "pretraining.json")


if __name__ == "__main__":
    cli.main(work)
