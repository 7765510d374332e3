"""Time the imports of a fine-tuning job, as they are and with the whole of open_clip."""

import os
import subprocess
import sys

from common import ROOT, compare, write_table

LEAN = "import foretune.training.finetune"
# The same with open_clip imported first, in the usual way.
WHOLE = "import open_clip; import foretune.training.finetune"


def main() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "workflow_scripts")}

    def run(code):
        return lambda: subprocess.run([sys.executable, "-c", code], check=True, env=env)

    works = {
        "torch alone": "import torch",
        "fine-tuning, as it is": LEAN,
        "fine-tuning, after `import open_clip`": WHOLE,
    }
    times = compare({name: run(code) for name, code in works.items()}, runs=5)
    whole = times["fine-tuning, after `import open_clip`"]
    rows = [
        {"imports": name, "seconds": f"{value:.1f}", "ratio": f"{value / whole:.2f}"}
        for name, value in times.items()
    ]
    write_table("start", "A job's start", rows, "Medians of 5 runs in turn.")


if __name__ == "__main__":
    main()
