"""`s2s export` and `--engine ctranslate2`, with a Transformer that has learned nothing."""

import pytest
import torch

from s2s.app import compose
from s2s.task.trained import Trained, build_model, save_trained
from s2s.text.corpus import generated

pytest.importorskip("ctranslate2")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pairs = generated(task="sort", train=50, dev=5, test=5, max_length=6).splits["train"]
    config = compose("teach/copy", ["encoder=transformer", "decoder=transformer", "attention=multihead"])
    source, target = config.text.build().train([pair.source for pair in pairs], [pair.target for pair in pairs])
    torch.manual_seed(1)
    made = build_model(config, source.size, target.size)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    folder = tmp_path_factory.mktemp("random") / "model"
    save_trained(folder, Trained(made, source, target, config, ("a", "b")), training={}, card="")
    return folder


def test_lines_come_out_the_same(s2s, model):
    stdin = "ba be\n\nbi bo bu\nda\n"
    ours = s2s("translate", model, "--beam", "1", stdin=stdin)
    assert len(set(ours.lines)) == 4
    theirs = s2s("translate", model, "--beam", "1", "--engine", "ctranslate2", stdin=stdin)
    assert theirs.code == 0
    assert theirs.lines == ours.lines
    assert s2s("summarise", model, "--beam", "1", "--engine", "ctranslate2", "--workers", "2", stdin=stdin).lines == (
        ours.lines
    )
    assert s2s("translate", model, "--precision", "int8", stdin=stdin).code == 0
    refused = s2s("translate", model, "--engine", "ctranslate2", "--constraint", "ba", stdin=stdin)
    assert refused.code == 2
    assert "--engine torch" in refused.err


def test_a_model_is_scored_with_either_engine(s2s, model):
    assert s2s("eval", model, "--beam", "1", "--engine", "ctranslate2").lines == (
        s2s("eval", model, "--beam", "1").lines
    )


def test_a_folder_is_written_once(s2s, model, reverse_run, tmp_path):
    folder = tmp_path / "deep" / "out"
    done = s2s("export", model, "--to", "ctranslate2", "-o", folder, "--precision", "int8")
    assert (done.code, done.lines) == (0, [str(folder)])
    assert {"model.bin", "config.json"} <= {path.name for path in folder.iterdir()}
    again = s2s("export", model, "--to", "ctranslate2", "-o", folder)
    assert again.code == 2
    assert "Name a new folder" in again.err
    recurrent = s2s("export", reverse_run, "--to", "ctranslate2", "-o", tmp_path / "other")
    assert recurrent.code == 2
    assert "recurrent" in recurrent.err
    assert not (tmp_path / "other").exists()
