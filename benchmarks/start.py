"""Time the imports of a fine-tuning job: from the job server, alone, and with all of open_clip."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, compare, write_table
from job_server import THREADS, start_job_server

LEAN = "import foretune.training.finetune"
# The same with open_clip imported first, in the usual way.
WHOLE = "import open_clip; import foretune.training.finetune"


def main() -> None:
    os.environ |= {"PYTHONPATH": str(ROOT / "workflow_scripts")} | dict.fromkeys(THREADS, "1")

    def run(*words):
        return lambda: subprocess.run(words, check=True)

    def run_alone(code):
        return run(sys.executable, "-c", code)

    start_job_server()
    job = Path(tempfile.mkdtemp(), "measure.py")  # the server knows its jobs by their names
    job.write_text(LEAN)
    works = {
        "fine-tuning, forked by the job server": run("python", job),
        "torch alone": run_alone("import torch"),
        "fine-tuning, plain Python": run_alone(LEAN),
        "fine-tuning, after `import open_clip`": run_alone(WHOLE),
    }
    times = compare(works, runs=5)
    whole = times["fine-tuning, after `import open_clip`"]
    rows = [
        {"imports": name, "seconds": f"{value:.1f}", "ratio": f"{value / whole:.2f}"}
        for name, value in times.items()
    ]
    write_table("start", "A job's start", rows, "Medians of 5 runs in turn.")


if __name__ == "__main__":
    main()
