"""Make the held-back tasks: six image tasks from packages, on which no study or default rests.

`foretune.suite.package_tasks` says how they were drawn. The pictures are larger than the mini
encoders' input, and are not turned, cut or coloured. `python benchmarks/held_back.py` makes them.
"""

from pathlib import Path

from common import ROOT
from foretune.suite.package_tasks import HELD_BACK, describe_tasks, list_entries, make_tasks

PINS = ROOT / "resources/forecast_study/packages.txt"


def make_all(folder: Path) -> dict[str, dict]:
    """Make all held-back tasks below `folder`, and return their entries in a config."""
    folders = make_tasks(HELD_BACK, PINS, ROOT / "results/packages", folder)
    print(describe_tasks(folders))
    return list_entries(folders, ROOT)
