"""Several captions of a class: from templates or from a file, and their mean vectors."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from checkout import CLIP_MINI
from foretune.core.errors import ForetuneError
from foretune.encoders.cache import Embeddings, read_embeddings
from foretune.encoders.captions import get_captions, make_captions, read_class_captions
from foretune.encoders.encode import embed_captions, encode_captions
from foretune.encoders.loading import load_model

CLASSES = ["snow leopard", "cat"]


def test_each_template_is_a_caption():
    captions = make_captions(CLASSES, ["a {}", "the {} and {}"])
    assert captions[1] == ["a cat", "the cat and cat"]
    assert make_captions(CLASSES, "a {}") == [["a snow leopard"], ["a cat"]]


def test_captions_per_class_are_read_by_name(tmp_path):
    path = tmp_path / "cupl.json"
    content = {"Cat": "a pet", "snow_leopard": ["it is white", "it is rare"], "dog": ["not asked"]}
    path.write_text(json.dumps(content))
    assert read_class_captions(path, CLASSES) == [["it is white", "it is rare"], ["a pet"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"cat": ["a"]}', "has no captions of the classes snow leopard"),
        ('{"cat": [], "snow leopard": "b"}', "cat: is not a list of captions"),
        ('{"cat": [1], "snow leopard": "b"}', "cat: is not a list of captions"),
        ('{"cat": ["a", " "], "snow leopard": "b"}', "cat: is not a list of captions"),
        ('{"cat": "a \\ud800", "snow leopard": "b"}', "cat: is not a list of captions"),
        ('{"cat": "a", "Cat": "c", "snow leopard": "b"}', "has the class Cat twice"),
        ('{"cat": {"a": "b"}, "snow leopard": "b"}', "cat: is not a list of captions"),
        ('["cat"]', "does not hold captions by class name"),
        ('{"cat": ', "cupl.json: is not JSON (Expecting value"),
        ("\xff", "cupl.json: is not JSON"),
    ],
)
def test_a_bad_file_of_captions_is_one_line(tmp_path, content, message):
    path = tmp_path / "cupl.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ForetuneError) as error:
        read_class_captions(path, CLASSES)
    assert message in str(error.value) and "cupl.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_unit_vectors_of_several_captions_are_averaged(tmp_path):
    model, _, tokenizer = load_model(CLIP_MINI)
    captions = [["a photo of a cat", "a drawing of a cat"], ["a photo of a dog"]]
    first, second, dog = encode_captions(model, tokenizer, [[c] for cs in captions for c in cs])
    mean, alone = encode_captions(model, tokenizer, captions)
    expected = F.normalize(first, dim=0) + F.normalize(second, dim=0)
    assert torch.cosine_similarity(mean, expected, dim=0) == pytest.approx(1, abs=1e-6)
    assert mean.norm() == pytest.approx(float(first.norm() + second.norm()) / 2, rel=1e-5)
    assert torch.allclose(alone, dog, rtol=1e-5)

    manifest = {"classes": ["cat", "dog"], "caption": "a {}", "digest": "-"}
    (tmp_path / "dataset.json").write_text(json.dumps(manifest))
    path = tmp_path / "text.parquet"
    embed_captions(CLIP_MINI, tmp_path, ["a photo of a {}", "a drawing of a {}"], path)
    cache = read_embeddings(path)
    assert get_captions(cache)[0] == captions[0]
    assert np.allclose(cache.vectors[0], mean.numpy(), atol=1e-5)
    (tmp_path / "cupl.json").write_text(json.dumps({"cat": captions[0], "dog": captions[1]}))
    embed_captions(CLIP_MINI, tmp_path, str(tmp_path / "cupl.json"), path)
    assert np.allclose(read_embeddings(path).vectors[1], dog.numpy(), atol=1e-5)


def test_a_cache_of_an_earlier_version_is_refused():
    old = Embeddings(np.zeros((1, 2)), {"caption": np.array(["a cat"])}, {})
    with pytest.raises(ForetuneError, match="comes from another version; run the study again"):
        get_captions(old)
