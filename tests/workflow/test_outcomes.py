"""Run studies whose accuracies come from a file: nothing is trained, with or without images."""

import pandas as pd
import pytest
import yaml

from smoke import NO_SERVER, jobs, run, take_fewer_images

pytestmark = pytest.mark.long
HEAD = "model,method,trained_on,evaluated_on,accuracy\n"


def test_study_without_images_runs_to_a_report(checkout):
    tables = ["--study", "studies/public_tables.yaml"]
    printed = run(checkout, *tables, env=NO_SERVER)
    assert jobs(printed) == {"analyze_study": 1, "write_report": 1, "draw_figures": 1, "all": 1}
    page = (checkout / "results/report.html").read_text()
    assert "come from the file resources/public/outcomes.csv" in page
    assert "No images of cars, cifar10," in page and 'id="confusion-' not in page
    trade_offs = pd.read_csv(checkout / "results/analysis/trade_offs.csv")
    assert list(trade_offs.n) == [8] * 4
    assert "Nothing to be done" in run(checkout, *tables, env=NO_SERVER)
    # LoRA has accuracies on 8 of the 20 tasks only.
    pages = ["results/forecast/pairs.csv", "results/forecast/pairs.html"]
    printed = run(checkout, *pages, *tables, env=NO_SERVER)
    assert jobs(printed) == {"forecast_pairs": 1, "write_pairs_page": 1}
    pairs = pd.read_csv(checkout / "results/forecast/pairs.csv")
    accuracies = pairs[pairs.outcome == "accuracy"]
    assert len(accuracies) == 12 and set(accuracies.method) == {"lora"}
    assert set(accuracies.predictor) == {"line on others_accuracy"}


def test_rest_of_a_half_done_study_is_forecast_without_fine_tuning(checkout):
    finished = checkout / "results/trials/clip_mini/full/digits/0/best.json"
    finished.parent.mkdir(parents=True)
    finished.write_text("{}")
    planned = jobs(run(checkout, "-n", "results/forecast/pairs.csv"))
    assert planned["evaluate_finished_models"] == planned["forecast_pairs"] == 1
    assert planned["rehearse_task"] == 2 and planned["fit_cached"] == 4
    assert "finetune_model" not in planned and "evaluate_model" not in planned
    study = yaml.safe_load((checkout / "studies/smoke.yaml").read_text())
    study["forecast"] = {"pilot": {"steps": 5}}
    (checkout / "studies/piloted.yaml").write_text(yaml.safe_dump(study))
    planned = jobs(run(checkout, "-n", "--study", "studies/piloted.yaml"))
    assert planned["pilot_model"] == 2  # one method is fine-tuned, on two datasets


def test_study_with_outcomes_measures_its_datasets_and_trains_nothing(checkout):
    take_fewer_images(checkout)
    rows = ["clip_mini,zero_shot,,mnist,0.5", "clip_mini,zero_shot,,cats,0.5",
            "clip_mini,full,mnist,mnist,0.75", "clip_mini,full,mnist,cats,0.25"]  # fmt: skip
    (checkout / "my outcomes.csv").write_text(HEAD + "\n".join(rows))
    study = {
        "outcomes": "my outcomes.csv", "without_images": ["cats"], "methods": {"full": {}},
        "models": {"clip_mini": {"folder": "resources/mini/clip"}},
        "datasets": {"mnist": {"parquet": "resources/mini/mnist.parquet"}},
        "measures": {"bootstrap": 0},
        "forecast": {"datasets": {"digits": {"parquet": "resources/mini/digits.parquet"}}},
    }  # fmt: skip
    (checkout / "studies/mine.yaml").write_text(yaml.safe_dump(study))
    mine = ["--study", "studies/mine.yaml"]
    planned = jobs(run(checkout, "-n", *mine))
    assert planned["measure_task"] == planned["prepare_dataset"] == 2
    assert planned["forecast_datasets"] == 1
    assert not [rule for rule in planned if rule.startswith(("finetune", "fit", "evaluate"))]
    run(checkout, "results/analysis/tasks.csv", *mine)
    task = pd.read_csv(checkout / "results/analysis/tasks.csv").iloc[0]
    assert task.gain_over_zero_shot_error == 0.5 and task.ood_change == -0.25
    assert task.chance == 0.1 and 0 < task.iimm < 1


def test_mistake_in_outcomes_ends_the_run_before_its_first_job(checkout):
    (checkout / "wrong.csv").write_text(HEAD + "clip_mini,zero_shot,,mnist,50\n")
    study = yaml.safe_load((checkout / "studies/smoke.yaml").read_text()) | {
        "outcomes": "wrong.csv"
    }
    (checkout / "studies/wrong.yaml").write_text(yaml.safe_dump(study))
    printed = run(checkout, "--study", "studies/wrong.yaml", check=False)
    assert (
        "wrong.csv: line 2: accuracy is 50, not from 0 to 1; if the file is in percent" in printed
    )
    assert "Traceback" not in printed
