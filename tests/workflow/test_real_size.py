"""The first paper's four models at their real size, with random weights, one after the other."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from checkout import ROOT
from real_size import METHODS

MODELS = yaml.safe_load((ROOT / "studies/paper.yaml").read_text())["models"]
# Weights of the image and text towers in millions, as they are published.
MILLIONS = {"clip_b32": 151, "coca_b32": 254, "siglip_b16": 203, "eva02_b16": 150}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_the_paper_goes_from_embed_to_evaluate_on_24_gb(name, tmp_path):
    """Found by its tag in the hub's cache; one step of each method; printed time and memory."""
    spec = MODELS[name]
    command = [sys.executable, "tests/real_size.py", *spec.values(), str(tmp_path)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(name, {k: found[k] for k in ("parameters", "seconds", "cpu_seconds", "peak_gib")})
    assert round(found["parameters"] / 1e6) == MILLIONS[name]
    assert found["peak_gib"] < 10
    assert len(set(found["trained_weights"].values())) == len(METHODS)
    # Zero-shot, probe and adapter, and the tuned ones.
    assert found["predictions"] == (7 if name == "clip_b32" else 4)
    for file in tmp_path.rglob("*.safetensors"):
        file.unlink()  # a gigabyte, which pytest would keep
