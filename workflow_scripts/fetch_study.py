"""Fetch the public datasets and weights of a study, once, on a machine with a network.

Licences and sizes are listed first. The study's jobs never fetch anything.
"""

import os

from foretune.core import cli
from foretune.core.config import check_config
from foretune.core.errors import ForetuneError
from foretune.core.study_file import read_study


def work() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_path_options(parser, study="config file of the study")
    parser.add_argument("--list", action="store_true", help="list only, fetch nothing")
    args = parser.parse_args()
    # Set before huggingface_hub reads it; encoders/imports.py sets 1 for jobs.
    offline = os.environ.setdefault("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE")
    from foretune.planning.fetch import fetch_items
    from foretune.planning.fetch_list import UNKNOWN_FACT, format_items, list_items

    items = list_items(check_config(read_study(args.study)), ask=not offline)
    cli.log(format_items(items))
    if any(item.size == UNKNOWN_FACT for item in items):
        cli.log("?: a size that only the hub knows; it was not asked or did not answer")
    if args.list:
        return
    if offline:
        raise ForetuneError("HF_HUB_OFFLINE is set, so nothing is fetched; unset it to fetch")
    fetch_items(items, cli.log)
    cli.log("Everything is on this machine: the study's jobs need no network.")


if __name__ == "__main__":
    cli.main(work)
