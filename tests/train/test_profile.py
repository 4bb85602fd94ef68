"""profile=true: parts that add up, operations counted as by hand, nothing left behind, and only where asked for."""

import json

import pytest
import torch
from toys import TINY, call, trained

from s2s.app import compose
from s2s.task.present import drawn_profile
from s2s.task.trained import build_model
from s2s.text.batching import Example, collate
from s2s.train.options import OptimConfig
from s2s.train.profile import COUNTED, PARTS, WARM, Part, Profile, Profiler, _fused, _fused_backward, part
from s2s.train.step import make_optimizer, update

LENGTH, ROWS, SIZE = 5, 3, 30
LSTM = ("encoder.width=8", "decoder.width=6", "model.embedding=4", "attention=general", "decoder.deep_output=false")
TRANSFORMER = (
    *("encoder=transformer", "decoder=transformer", "attention=multihead", "model.embedding=8", "encoder.layers=1"),
    *("decoder.layers=1", "encoder.feed_forward=16", "decoder.feed_forward=16"),
)


def profiled(*changes, updates=WARM + COUNTED + 3):
    config = compose("teach/copy", [*changes, "model.tie=none"])
    torch.manual_seed(0)
    model = build_model(config, SIZE, SIZE)
    batch = collate([Example([5] * (LENGTH - 1), [6] * (LENGTH - 1))] * ROWS, range(ROWS))
    profiler, optimizer = Profiler(model, OptimConfig(), "float32"), make_optimizer(model, OptimConfig())
    for _ in range(updates):
        with profiler.update():
            made = update(model, [batch], optimizer, OptimConfig(), rate=1e-3)
        profiler.saw(made.tokens)
    return model, profiler


def operations(profiler):
    return {one.name: one.operations for one in profiler.result(training=1.0, waiting=0.5).parts}


def test_operations_of_a_recurrent_model_are_those_counted_by_hand():
    _, profiler = profiled(*LSTM)
    found, tokens = operations(profiler), ROWS * LENGTH
    encoder = 2 * 4 * 4 * (4 + 4)  # two directions of width 4, four gates, from embedding 4 and the state
    assert found["encoder"] == 2 * tokens * encoder
    keys, bridge = 6 * 8, 8 * 12  # W h of general attention, projected once, and the first state
    energies_and_context = LENGTH * 6 + LENGTH * 8
    assert found["attention"] == 2 * tokens * energies_and_context
    output = SIZE * 6
    assert found["output layer"] == 3 * 2 * tokens * output
    assert found["other"] == 2 * tokens * keys + 2 * ROWS * bridge
    step = 24 * (4 + 6 + 6) + (6 + 8) * 6  # gates from embedding, feed and state; readout
    assert found["recurrence"] == 2 * tokens * step
    assert found["backward"] == 2 * 2 * (tokens * (encoder + step + energies_and_context + keys) + ROWS * bridge)


def test_operations_of_weights_that_are_laid_out_are_those_of_plain_ones(monkeypatch):
    plain = operations(profiled(*LSTM)[1])
    monkeypatch.setattr("s2s.products._WORTH_PACKING", 1)
    assert operations(profiled(*LSTM)[1]) == plain


def test_operations_of_a_gru_that_is_made_of_plain_products_are_counted_once():
    _, profiler = profiled(*LSTM, "encoder=gru", "decoder=gru")
    assert operations(profiler)["encoder"] == 2 * ROWS * LENGTH * 2 * 3 * 4 * (4 + 4)


def test_operations_of_fused_layers_by_their_shapes():
    gates = [(20, 4), (20, 5), (20,), (20,)]  # five units of four gates, four inputs
    by_hand = 2 * 3 * 7 * 20 * (4 + 5)
    assert _fused((7, 3, 4), *gates, (3, 5), (3, 5), False) == by_hand  # oneDNN
    assert _fused((3, 7, 4), gates, 4, None) == by_hand  # cuDNN
    assert _fused_backward((3, 7, 4), gates, 4, None) == 2 * by_hand


def test_operations_are_those_of_a_batch_of_mean_size():
    _, profiler = profiled(*LSTM)
    before = operations(profiler)
    profiler._tokens *= 2  # as if the updates that were timed were twice as large as the one that was counted
    assert operations(profiler) == {name: 2 * number for name, number in before.items()}


def test_operations_of_a_transformer():
    _, profiler = profiled(*TRANSFORMER)
    found, tokens = operations(profiler), ROWS * LENGTH
    layer = 4 * 8 * 8 + 2 * 8 * 16
    assert found["encoder"] == 2 * tokens * (layer + 2 * LENGTH * 8)
    assert found["backward"] > found["encoder"] + found["recurrence"] + found["attention"]


def test_parts_add_up_and_tell_of_the_machine():
    _, profiler = profiled(*LSTM)
    found = profiler.result(training=2.0, waiting=1.0)
    assert [one.name for one in found.parts] == list(PARTS)
    assert found.updates == COUNTED
    assert found.tokens == ROWS * LENGTH
    assert found.seconds == pytest.approx(sum(one.seconds for one in found.parts))
    assert all(one.seconds > 0 for one in found.parts)
    assert found.rate > 1e8
    assert found.bandwidth > 1e8
    for one in found.parts:
        assert one.floor == pytest.approx(max(one.operations / found.rate, one.bytes / found.bandwidth))


def test_only_the_innermost_part_takes_the_time_and_nothing_is_left_behind():
    model, profiler = profiled(*LSTM, updates=0)
    before = [(name, len(one._forward_hooks), len(one._forward_pre_hooks)) for name, one in model.named_modules()]
    profiler._clock = iter(range(100)).__next__  # every look at the clock is a second later
    profiler._seen = WARM + 1
    with profiler.update(), part("backward"), part("data"):
        pass
    assert {name: used for name, used in profiler._seconds.items() if used} == {"other": 2, "backward": 2, "data": 1}
    assert before == [(name, len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()]
    with part("data"):  # outside of an update nobody looks
        pass
    assert profiler._seconds["data"] == 1


def test_too_few_updates_give_nothing():
    _, profiler = profiled(*LSTM, updates=WARM + 1)
    assert profiler.result(training=1.0, waiting=0.0) is None


def test_what_is_told():
    parts = [Part("data", 0.1, 0, 0, 0), Part("backward", 0.3, 1e9, 0, 0.1)]
    found = Profile(parts, 20, 80, 1e10, 1e9, 3.0, 9.0)
    assert found.told() == "profile of 20 updates: 200 target tokens/s, 800 at best; backward 75 %, data 25 %"
    drawn = drawn_profile(json.loads(json.dumps(found.plain())))
    assert drawn["parts"] == [["data", 0.1, 0], ["backward", 0.3, 0.1]]
    assert "200 target tokens/s, 800 at best" in drawn["text"]


def test_a_run_with_and_without(tmp_path):
    steps = f"trainer.steps={WARM + 6}"
    plain = trained(tmp_path / "plain", "teach/copy", steps)
    looked = trained(tmp_path / "looked", "teach/copy", steps, "profile=true")
    assert not (plain / "profile.json").exists()
    profile = json.loads((looked / "profile.json").read_text())
    assert profile["updates"] == 5
    page = (looked / "report.html").read_text()
    assert '"profile":{' in page
    assert '"profile":null' in (plain / "report.html").read_text()
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (plain, looked)]
    assert weights[0] == weights[1]  # looking changes nothing


def test_a_short_run_says_that_it_saw_nothing(tmp_path):
    done = call("train", "teach/copy", *TINY, "trainer.steps=2", "optim.warmup=0", "profile=true", f"output={tmp_path}")
    assert done.code == 0, done.err
    assert "too few updates" in done.err


def test_a_part_that_raises_is_left():
    model, profiler = profiled(*LSTM, updates=0)
    profiler._clock, profiler._seen = iter(range(100)).__next__, WARM + 1
    with torch.no_grad():
        model.decoder.bridge.bias.fill_(torch.nan)  # the attention refuses the query
    batch = collate([Example([5], [6])], [0])
    with profiler.update():
        made = update(model, [batch], make_optimizer(model, OptimConfig()), OptimConfig(), rate=1e-3)
        with part("data"):
            pass
    assert not made.finite
    assert profiler._seconds["other"] > profiler._seconds["attention"] == 1


def test_a_run_that_goes_on_keeps_its_profile(tmp_path):
    run = trained(tmp_path, "teach/copy", f"trainer.steps={WARM + 6}", "profile=true")
    before = (run / "profile.json").read_bytes()
    done = call("train", "--resume", run, f"trainer.steps={WARM + 8}")
    assert done.code == 0, done.err
    assert (run / "profile.json").read_bytes() == before
    assert '"profile":{' in (run / "report.html").read_text()
