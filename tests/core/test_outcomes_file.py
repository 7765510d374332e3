"""Files of accuracies from elsewhere: what is read, and the messages about what is wrong."""

import pytest

from checkout import CLIP_MINI, ROOT
from foretune.core.config import check_config
from foretune.core.errors import ForetuneError
from foretune.core.outcomes_file import read_outcomes
from foretune.core.study_file import read_study

HEAD = "model,method,trained_on,evaluated_on,accuracy,n\n"
ROWS = """clip,zero_shot,,cats,0.5,200
clip,zero_shot,,dogs,0.25,
clip,full,cats,cats,0.75,200
clip,full,cats,dogs,0.2,
"""
DIGITS = str(ROOT / "resources/mini/digits.parquet")


def write(folder, text):
    path = folder / "outcomes.csv"
    path.write_text(text)
    return path


def make_config(path, **changes):
    return {
        "models": {"clip": CLIP_MINI, "other": CLIP_MINI},
        "datasets": {}, "without_images": ["cats", "dogs"], "outcomes": str(path),
        "methods": {"full": {}, "lora": {"models": ["other"]}},
    } | changes  # fmt: skip


def test_read_outcomes_reads_shares_counts_and_empty_cells(tmp_path):
    rows = read_outcomes(write(tmp_path, HEAD + ROWS))
    assert [row.accuracy for row in rows] == [0.5, 0.25, 0.75, 0.2]
    assert [row.n for row in rows] == [200, None, 200, None]
    assert [row.trained_on for row in rows] == [None, None, "cats", "cats"]
    assert {row.split for row in rows} == {"test"} and rows[0].line == 2


def test_read_outcomes_takes_percent_other_columns_and_a_spreadsheets_format(tmp_path):
    text = "\ufeffsource, evaluated_on ,method,model,trained_on,accuracy_percent,split\r\n"
    text += "a paper,cats,zero_shot,clip,,50.5,sketch\r\n"
    row = read_outcomes(write(tmp_path, text))[0]
    assert row.accuracy == pytest.approx(0.505) and row.split == "sketch" and row.n is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column model, method, trained_on, evaluated_on; the first line names"),
        (HEAD, "has no rows"),
        (HEAD.replace("trained_on", "trained"), "no column trained_on"),
        (HEAD.replace(",accuracy", ""), "needs either a column accuracy .* but has neither"),
        (HEAD.replace("n\n", "accuracy_percent\n"), "has accuracy and accuracy_percent"),
        (HEAD + "clip,full,cats", "line 2: has more or fewer values"),
        (HEAD + "clip,full,cats,cats,0.5,1,2", "line 2: has more or fewer values"),
        (HEAD + "clip,full,cats,cats,75.0,", "line 2: accuracy is 75.0, not from 0 to 1; if the "
         "file is in percent, name the column accuracy_percent"),
        (HEAD + "clip,full,cats,cats,-0.1,", "accuracy is -0.1, not from 0 to 1$"),
        (HEAD + "clip,full,cats,cats,nan,", "accuracy is nan, not from 0 to 1$"),
        (HEAD + "clip,full,cats,cats,half,", "line 2: accuracy 'half' is not a number"),
        (HEAD + "clip,full,cats,cats,,", "line 2: accuracy '' is not a number"),
        (HEAD + "clip,full,cats,cats,0.5,many", "line 2: n is 'many', not a number of test images"),
        (HEAD + ",full,cats,cats,0.5,", "line 2: model is empty"),
        (HEAD + "clip,full,,cats,0.5,", "line 2: trained_on is empty"),
        (HEAD + "clip,zero_shot,cats,cats,0.5,", "leave trained_on empty"),
        (HEAD.replace("accuracy", "accuracy_percent") + ROWS, "no accuracy_percent is above 1"),
    ],
)  # fmt: skip
def test_read_outcomes_names_file_and_line_of_a_mistake(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ForetuneError, match=message) as caught:
        read_outcomes(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_read_outcomes_says_that_there_is_no_readable_file(tmp_path):
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("none.csv", "binary.csv"):
        with pytest.raises(ForetuneError, match=rf"{name}: cannot be read: "):
            read_outcomes(tmp_path / name)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("klip,full,cats,cats,0.5,", "line 6: model klip is not in the study; did you mean clip"),
        ("clip,bitfit,cats,cats,0.5,", "line 6: method bitfit is not in the study"),
        ("clip,full,cat,cats,0.5,", "trained_on cat is not in the study; did you mean cats"),
        ("clip,full,cats,birds,0.5,", "evaluated_on birds is not in the study; known: cats"),
        ("clip,lora,cats,cats,0.5,", "line 6: methods.lora.models does not list the model clip"),
        ("clip,full,cats,cats,0.8,", "line 6: .* are those of line 4; keep one of the two"),
        ("other,full,cats,cats,0.5,", "line 6: no row has the zero-shot accuracy of other on cats"),
        ("clip,full,dogs,cats,0.5,", "line 6: no row has the accuracy on dogs of clip as "
         "fine-tuned on it by full"),
    ],
)  # fmt: skip
def test_check_outcomes_refuses_rows_that_do_not_fit_the_study(tmp_path, row, message):
    path = write(tmp_path, HEAD + ROWS + row)
    with pytest.raises(ForetuneError, match=message) as caught:
        check_config(make_config(path))
    assert str(caught.value).startswith(f"{path}: ")


def test_check_outcomes_knows_the_shifted_tests_of_datasets_with_images(tmp_path):
    head = HEAD.replace(",n", ",split")
    rows = "clip,zero_shot,,digits,0.5,\nclip,zero_shot,,digits,0.4,sketch\n"
    path = write(tmp_path, head + rows)
    shifted = {"digits": {"parquet": DIGITS, "shifted": {"sketch": {"parquet": DIGITS}}}}
    changes = {"without_images": [], "datasets": shifted}
    assert check_config(make_config(path, **changes))["outcomes"] == str(path)
    changes["datasets"] = {"digits": {"parquet": DIGITS}}
    with pytest.raises(ForetuneError, match=r"line 3: split sketch: datasets\.digits\.shifted has"):
        check_config(make_config(path, **changes))


def test_check_config_needs_outcomes_for_datasets_without_images(tmp_path):
    path = write(tmp_path, HEAD + ROWS)
    study = check_config(make_config(path))
    assert study["datasets"] == {} and study["without_images"] == ["cats", "dogs"]
    config = make_config(path, methods={"full": {"learning_rate": [0.1]}})
    del config["outcomes"]
    with pytest.raises(ForetuneError, match=r"without_images: .* needs outcomes"):
        check_config(config)
    with pytest.raises(ForetuneError, match="datasets: a study needs at least one"):
        check_config(make_config(path, without_images=[]))
    both = make_config(path, datasets={"cats": {"parquet": DIGITS}})
    with pytest.raises(ForetuneError, match="without_images: cats: is among datasets"):
        check_config(both)
    with pytest.raises(ForetuneError, match="temperature_scaling: needs predictions"):
        check_config(make_config(path, temperature_scaling=True))


def test_check_config_needs_a_learning_rate_to_train(tmp_path):
    config = make_config(write(tmp_path, HEAD + ROWS))
    del config["outcomes"]
    config |= {"datasets": {"digits": {"parquet": DIGITS}}, "without_images": []}
    with pytest.raises(ForetuneError, match=r"methods\.full\.learning_rate: is missing"):
        check_config(config)


def test_public_studies_are_valid_and_have_the_same_tests(monkeypatch):
    monkeypatch.chdir(ROOT)
    studies = [
        check_config(read_study(f"studies/{name}.yaml")) for name in ("public", "public_tables")
    ]
    names = [{*study["datasets"], *study["without_images"]} for study in studies]
    assert names[0] == names[1] and len(names[0]) == 20
    assert studies[0]["models"] == studies[1]["models"]
