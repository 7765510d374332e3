"""Fetch the public datasets and weights of a study, once, on a machine with network.

Licences and sizes are listed first. Jobs never fetch anything themselves.
"""

import os
from pathlib import Path

import yaml

from foretune import cli
from foretune.config import check_config
from foretune.files import ForetuneError


def work() -> None:
    parser = cli.parser(__doc__)
    cli.add_paths(parser, study="config of the study")
    parser.add_argument("--list", action="store_true", help="list only")
    args = parser.parse_args()
    # Before the libraries that read it; a job's default is 1 (lean.py).
    offline = os.environ.setdefault("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE")
    from foretune.fetch import fetch, items_of, table_of

    try:
        config = check_config(yaml.safe_load(Path(args.study).read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise ForetuneError(f"{args.study}: not a readable study ({error})") from None
    items = items_of(config, ask=not offline)
    cli.log(table_of(items))
    if args.list:
        return
    if offline:
        raise ForetuneError("HF_HUB_OFFLINE is set: nothing is fetched; unset it to fetch")
    fetch(items, cli.log)
    cli.log("All is here: jobs need no network.")


if __name__ == "__main__":
    cli.main(work)
