"""Tests of the record of what a report was made from."""

import json

from foretune.report.provenance import write_provenance

COMMIT = "a" * 40


def test_write_provenance_names_the_commits_that_were_fetched(tmp_path):
    notes = tmp_path / "root/.cache/huggingface/download/test"
    notes.mkdir(parents=True)
    for number in range(2):
        (notes / f"{number}.tar.metadata").write_text(f"{COMMIT}\netag\n1.5\n")
    measures = []
    for model, revision in (("mine", None), ("hub", "b" * 40)):
        measures.append(tmp_path / f"{model}.json")
        facts = {"model": model, "weights": model, "revision": revision}
        measures[-1].write_text(json.dumps(facts))
    night = {"webdataset": "me/night", "root": str(tmp_path / "root")}
    datasets = {"birds": {"folder": "birds", "shifted": {"night": night}}}
    write_provenance({"datasets": datasets}, [], measures, tmp_path / "p.json")
    facts = json.loads((tmp_path / "p.json").read_text())
    assert facts["revisions"] == {"hub": "b" * 40, "birds/night": COMMIT}
    assert facts["models"] == {"mine": "mine", "hub": "hub"}
