"""How long a job waits before it works: the imports of fine-tuning, lean and whole."""

import os
import subprocess
import sys

from common import ROOT, compare, write_table

LEAN = "import foretune.training.finetune"
# What `import foretune.training.finetune` would cost with open_clip imported as it comes.
WHOLE = "import open_clip; import foretune.training.finetune"


def main() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "workflow_scripts")}

    def run(code):
        return lambda: subprocess.run([sys.executable, "-c", code], check=True, env=env)

    works = {
        "torch alone": "import torch",
        "fine-tuning, lean": LEAN,
        "fine-tuning, open_clip imported as it comes": WHOLE,
    }
    times = compare({name: run(code) for name, code in works.items()}, runs=5)
    whole = times["fine-tuning, open_clip imported as it comes"]
    rows = [
        {"imports": name, "seconds": f"{value:.1f}", "ratio": f"{value / whole:.2f}"}
        for name, value in times.items()
    ]
    write_table("start", "A job's start", rows, "Medians of 5 runs in turn.")


if __name__ == "__main__":
    main()
