"""Fetch the public datasets and weights of a study, once, on a machine with network.

Licences and sizes are listed first. Jobs never fetch anything themselves.
"""

import os

from foretune.core import cli
from foretune.core.config import check_config, read_study
from foretune.core.errors import ForetuneError


def work() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_path_options(parser, study="config of the study")
    parser.add_argument("--list", action="store_true", help="list only")
    args = parser.parse_args()
    # Before the libraries that read it; a job's default is 1 (lean.py).
    offline = os.environ.setdefault("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE")
    from foretune.planning.fetch import fetch_items, format_items, list_items

    items = list_items(check_config(read_study(args.study)), ask=not offline)
    cli.log(format_items(items))
    if any(item.size == "?" for item in items):
        cli.log("?: a size that only the hub knows, which was not asked or did not answer")
    if args.list:
        return
    if offline:
        raise ForetuneError("HF_HUB_OFFLINE is set: nothing is fetched; unset it to fetch")
    fetch_items(items, cli.log)
    cli.log("All is here: jobs need no network.")


if __name__ == "__main__":
    cli.main(work)
