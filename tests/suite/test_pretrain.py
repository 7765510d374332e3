"""Pretraining of the mini encoders, on a tiny corpus."""

import json
import string

import pyarrow as pa
import pytest
from PIL import ImageFont

from checkout import ROOT
from foretune.core.parquet import write_parquet
from foretune.encoders.loading import load_model
from foretune.suite import corpus, pretrain

MINI = ROOT / "resources/mini"


@pytest.fixture(scope="module")
def tiny_corpus(tmp_path_factory):
    """A corpus of drawings, and of characters in Pillow's own font."""
    font = ImageFont.load_default(36)
    rows = list(corpus.render_drawings(150, 0))
    rows += [{**row, "kind": "pictogram", "noun": f"thing {i}"} for i, row in enumerate(rows)]
    for kind, codes in (("digit", string.digits), ("letter", string.ascii_letters)):
        rows += [
            corpus.make_row(
                corpus.render_glyph(font, code), kind, code, True, f"font default:{code}"
            )
            for code in codes
        ]
    path = tmp_path_factory.mktemp("corpus") / "corpus.parquet"
    write_parquet(pa.Table.from_pylist(rows), path, {})
    return path


@pytest.mark.parametrize("encoder", ["clip", "siglip", "coca", "eva02"])
def test_pretrain_learns_and_resumes_after_a_kill(encoder, tiny_corpus, tmp_path):
    architecture = tmp_path / "open_clip_config.json"
    config = json.loads((MINI / encoder / "open_clip_config.json").read_text())
    config["foretune"]["pretraining"] |= {"steps": 6, "batch_size": 64, "warmup": 1}
    architecture.write_text(json.dumps(config))
    save = pretrain.save_checkpoint

    def save_and_die(state, path, made_from):
        save(state, path, made_from)
        raise KeyboardInterrupt

    histories = []
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        pretrain.build_vocabulary(tiny_corpus, architecture, folder)
        state = folder / "state.pt"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pretrain, "SAVE_EVERY", 3)
            if name == "killed":
                patch.setattr(pretrain, "save_checkpoint", save_and_die)
                with pytest.raises(KeyboardInterrupt):
                    pretrain.pretrain(folder, tiny_corpus, state, 0, log=str)
                patch.setattr(pretrain, "save_checkpoint", save)
            histories.append(pretrain.pretrain(folder, tiny_corpus, state, 0, log=str))
    whole, killed = ([row["loss"] for row in history] for history in histories)
    # Equal to the bit: both run in this process, on the same processor and threads.
    assert len(whole) == 2 and whole == killed
    # The second three steps against the first three. Rounding moves these means by far less than
    # they differ, by 0.2 or more.
    assert whole[1] < whole[0]
    load_model({"folder": tmp_path / "whole"})
