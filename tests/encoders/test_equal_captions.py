"""Classes whose captions a model's tokenizer cuts to, or reads as, the same tokens."""

import json

import numpy as np
import pyarrow.parquet as pq

from checkout import ROOT
from foretune.encoders.captions import find_first_equal, note_equal_captions
from foretune.encoders.encode import embed_captions


def test_find_first_equal():
    assert find_first_equal([b"31", b"12", b"31", b"12", b"0"]).tolist() == [0, 1, 0, 1, 4]


def test_note_equal_captions_names_the_classes():
    classes = ["leo", "onca", "tigris; x", "cat", "Cat", "dog"]
    (note,) = note_equal_captions(np.array([0, 0, 0, 3, 3, 5]), classes)
    assert "captions of 5 classes are the same" in note
    assert "leo = onca = tigris, x, cat = Cat (" in note and "dog" not in note
    assert ";" not in note  # notes are joined by semicolons
    assert note_equal_captions(np.arange(6), classes) == note_equal_captions(None, classes) == []


def test_embed_captions_records_equal_tokens(tmp_path):
    """SigLIP mini reads 20 tokens, so that the last words of these names are cut off."""
    kind = "03111 Animalia Chordata Mammalia Carnivora Felidae Panthera"
    classes = [f"{kind} leo", "dog", f"{kind} onca", "Dog"]
    manifest = {"classes": classes, "caption": "a photo of {}", "digest": "-"}
    (tmp_path / "dataset.json").write_text(json.dumps(manifest))
    model = {"folder": str(ROOT / "resources/mini/siglip")}
    lines: list[str] = []
    embed_captions(model, tmp_path, None, tmp_path / "text.parquet", lines.append)
    (warning,) = lines
    assert warning.startswith("warning: the captions of 4 classes are the same")
    same = pq.read_table(tmp_path / "text.parquet")["same_tokens_as"].to_pylist()
    assert same == [0, 1, 0, 1]
