"""bench/mechanisms.py: results are kept as runs end, and a table is made of them."""

import json
import shutil
from pathlib import Path

from toys import TINY

from bench import mechanisms
from s2s import paths


def test_options_of_a_mechanism_become_overrides():
    assert mechanisms.overrides("dot") == ["attention=dot"]
    wanted = ["attention=local_p", "attention.score=additive", "attention.window=5"]
    assert mechanisms.overrides("local_p:score=additive,window=5") == wanted


def test_results_are_kept_one_by_one_and_compared(s2s, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(paths.conf_dir().parent))
    words = ["--recipe", "teach/copy", "--results", "kept", *TINY]
    words += ["trainer.validate_every=null", "trainer.steps=3", "optim.warmup=1"]
    assert mechanisms.main([*words, "dot", "additive:heads=5"]) == 1  # 48 isn't divided by 5
    assert capsys.readouterr().out.split() == ["kept/teach/copy/dot"]
    kept = Path("kept/teach/copy/dot")
    assert sorted(path.name for path in kept.iterdir()) == sorted([*mechanisms.KEPT, "machine.json"])
    assert json.loads((kept / "machine.json").read_text(encoding="utf-8"))["CPU"]
    assert mechanisms.main([*words, "dot"]) == 0  # it is there already
    assert (capsys.readouterr().out, len(list(Path("runs/teach/copy").glob("2*")))) == ("", 1)
    references = next(Path("runs/teach/copy").glob("2*/test.ref"))
    shutil.copytree(kept, "again")
    done = s2s("compare", kept, "again", "--ref", references, "--samples", "40", "--json")
    first, second = json.loads(done.out)
    assert [row["attention"] for row in (first, second)] == ["dot", "dot"]
    assert second["p_values"]["bleu"] == {"bootstrap": 1.0, "randomisation": 1.0}
