"""Names and entries of a method's variants."""

import pytest

from foretune.core.config import check_config
from foretune.core.errors import ForetuneError
from foretune.core.variants import Variant, average_name, get_base_method, parse_variant

RECIPE = {"learning_rate": [0.1]}


def expand(**recipe):
    study = {
        "models": {"m": {"architecture": "RN50", "pretrained": "openai"}},
        "datasets": {"d": {"torchvision": "MNIST"}},
        "methods": {"linear_probe": RECIPE | recipe},
    }
    return check_config(study)["methods"]


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("lora", Variant("lora")),
        ("clip_adapter_16shot", Variant("clip_adapter", 16)),
        ("full_seed3", Variant("full", None, 3)),
        ("linear_probe_1shot_seed0", Variant("linear_probe", 1, 0)),
        ("zero_shot", Variant("zero_shot")),
        ("a method of theirs", Variant("a method of theirs")),
    ],
)
def test_names_are_read_as_they_are_written(name, variant):
    assert parse_variant(name) == variant
    assert variant.name == name


def test_names_without_seed_and_without_both():
    assert average_name("lora_4shot_seed1") == "lora_4shot"
    assert get_base_method("lora_4shot_seed1") == "lora"


def test_an_entry_per_number_of_shots_and_seed():
    methods = expand(shots=[1, "all"], seeds=[0, 7])
    settings = {name: (r.get("shots"), r.get("seed")) for name, r in methods.items()}
    assert settings == {
        "linear_probe_1shot_seed0": (1, 0), "linear_probe_1shot_seed7": (1, 7),
        "linear_probe_seed0": (None, 0), "linear_probe_seed7": (None, 7),
    }  # fmt: skip
    assert "seeds" not in methods["linear_probe_1shot_seed0"]
    assert list(expand()) == ["linear_probe"]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"shots": 4}, "methods.linear_probe.shots"),
        ({"shots": []}, "methods.linear_probe.shots"),
        ({"shots": [0]}, "methods.linear_probe.shots.0"),
        ({"shots": ["four"]}, "methods.linear_probe.shots.0"),
        ({"shots": [4, 4]}, "methods.linear_probe.shots"),
        ({"seeds": [-1]}, "methods.linear_probe.seeds.0"),
        ({"seeds": [1.0]}, "methods.linear_probe.seeds.0"),
        ({"seeds": 3}, "methods.linear_probe.seeds"),
    ],
)
def test_bad_settings_are_named(recipe, message):
    with pytest.raises(ForetuneError) as error:
        expand(**recipe)
    print(error.value)
    assert str(error.value).startswith(f"{message}: ") and "\n" not in str(error.value)
