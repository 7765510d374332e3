"""Run the first paper's four models at their real size, with random weights, one by one."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from checkout import ROOT
from real_size import METHODS

pytestmark = pytest.mark.long

MODELS = yaml.safe_load((ROOT / "studies/paper.yaml").read_text())["models"]
# Published numbers of parameters of the image and text towers, in millions.
MILLIONS = {"clip_b32": 151, "coca_b32": 254, "siglip_b16": 203, "eva02_b16": 150}


# Each model takes a minute or two. The mini encoders test all families in every run of CI.
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_model_of_the_paper_is_embedded_trained_and_evaluated_within_24_gb(name, tmp_path):
    """The weights come from the hub's cache by their tag; each method trains for one step."""
    spec = MODELS[name]
    command = [sys.executable, "tests/support/real_size.py", *spec.values(), str(tmp_path)]
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads(done.stdout.splitlines()[-1])
    print(name, {key: facts[key] for key in ("parameters", "seconds", "cpu_seconds", "peak_gib")})
    assert round(facts["parameters"] / 1e6) == MILLIONS[name]
    assert facts["peak_gib"] < 10
    assert len(set(facts["trained_weights"].values())) == len(METHODS)
    # Zero-shot, three probes, the adapter, and the fine-tuned models.
    assert facts["predictions"] == (12 if name == "clip_b32" else 6)
    for file in tmp_path.rglob("*.safetensors"):
        file.unlink()  # pytest would keep this gigabyte
