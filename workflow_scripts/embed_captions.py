"""Embed the class captions of a dataset by a model."""

import json

from foretune import cli


def work() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--model-spec", type=json.loads, required=True, help="config entry, JSON")
    parser.add_argument(
        "--template", type=json.loads, default=None, help="caption with {}, JSON; null: its own"
    )
    cli.add_paths(parser, dataset="folder of the prepared dataset", output="text.parquet")
    args = parser.parse_args()
    from foretune.embed import embed_captions  # after the arguments: torch takes seconds to load

    embed_captions(args.model_spec, args.dataset, args.template, args.output)


if __name__ == "__main__":
    cli.main(work)
