"""What is added to the loss: by the attention itself, and by links that guide it."""

import dataclasses
import math

import pytest
import torch
from train_toys import OPTIM, TRAINER, Session, corpus, tiny

from s2s.model.seq2seq import real_positions
from s2s.tensors import persistent_buffers
from s2s.text.batching import Example, collate
from s2s.train import checkpoint
from s2s.train.loss import guided_alignment
from s2s.train.options import OptimConfig
from s2s.train.step import batch_loss, make_optimizer, update

PLAIN = OptimConfig(lr=0.01, warmup=0, clip=None)
GUIDED = dataclasses.replace(PLAIN, guided_alignment=0.7)


def reversed_corpus(count=60):
    """Sequences to reverse, with their links."""
    return [
        Example(e.source, e.source[::-1], [(len(e.source) - 1 - j, j) for j in range(len(e.source))])
        for e in corpus(count)
    ]


def batch_of(examples):
    return collate(examples, range(len(examples)))


def test_the_loss_of_the_attention_is_added_to_the_loss_alone():
    model, batch = tiny(extra=True).train(), batch_of(corpus()[:5])
    with_it = batch_loss(model, batch, PLAIN)
    largest, log_prob = model.decoder.attention.seen
    with torch.no_grad():
        output = model(batch, need_weights=True)
        right = model.log_probs(output.features).gather(2, batch.target_out.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(log_prob, real_positions(right, batch.target_lengths))
    assert not log_prob.requires_grad
    torch.testing.assert_close(largest, real_positions(output.weights.amax(-1), batch.target_lengths))
    model.decoder.attention.loss = lambda aux, log_prob: None
    without = batch_loss(model, batch, PLAIN)
    assert with_it.loss.item() == pytest.approx(without.loss.item() + largest.sum().item() / 2, rel=1e-6)
    assert torch.equal(with_it.nll, without.nll)
    assert with_it.guided is None
    one, other = (
        torch.autograd.grad(made.loss, model.decoder.attention.inner.score.vector) for made in (with_it, without)
    )
    assert not torch.allclose(one[0], other[0])


def test_it_counts_from_a_share_of_training_on(tmp_path):
    model, batch = tiny(extra=True).train(), batch_of(corpus()[:5])
    off = batch_loss(model, batch, PLAIN, added=False)
    assert off.loss.item() < batch_loss(model, batch, PLAIN).loss.item()

    asked = []
    optim = dataclasses.replace(OPTIM, attention_loss_from=0.5)
    one = Session(tmp_path, optim=optim, trainer=dataclasses.replace(TRAINER, steps=8), model=tiny(extra=True))
    attention = one.run.model.decoder.attention
    inner = attention.loss

    def counted(aux, log_prob):
        asked.append(one.run.position.step)
        return inner(aux, log_prob)

    attention.loss = counted
    one.fit()
    assert asked == [4, 5, 6, 7]


def test_it_takes_part_in_both_passes_of_rdrop():
    model, batch = tiny(extra=True).train(), batch_of(corpus()[:5])
    plain = batch_loss(model, batch, PLAIN)
    both = batch_loss(model, batch, dataclasses.replace(PLAIN, rdrop=2.0))
    torch.testing.assert_close(both.loss, plain.loss)


@pytest.mark.parametrize("cause", ["loss", "query", "gradient"])
def test_a_step_that_is_skipped_leaves_the_buffers_as_they_were(cause):
    model, batch = tiny(extra=True).train(), batch_of(corpus()[:5])
    optimizer = make_optimizer(model, PLAIN)
    assert update(model, [batch], optimizer, PLAIN, rate=0.01).finite
    before = {name: value.clone() for name, value in persistent_buffers(model).items()}
    assert before["decoder.attention.baseline"] != 0
    with torch.no_grad():
        if cause == "loss":
            model.output.bias[5] = math.inf
        elif cause == "query":
            model.decoder.bridge.bias.fill_(math.nan)
        else:
            model.decoder.bridge.weight.register_hook(lambda gradient: gradient * math.nan)
    assert not update(model, [batch, batch], optimizer, PLAIN, rate=0.01).finite
    for name, value in persistent_buffers(model).items():
        assert torch.equal(value, before[name])


def test_only_persistent_buffers_are_kept_and_averages_leave_them_alone(tmp_path):
    assert persistent_buffers(tiny()) == {}
    assert list(persistent_buffers(tiny(extra=True))) == ["decoder.attention.baseline"]
    (tmp_path / "plain").mkdir()
    one = Session(tmp_path / "plain", trainer=dataclasses.replace(TRAINER, steps=2))
    one.run.save(one.checkpoints)
    assert "buffers" not in checkpoint.load(checkpoint.latest(one.checkpoints))[0]

    optim = dataclasses.replace(OPTIM, ema=0.0, average=2)
    trainer = dataclasses.replace(TRAINER, steps=6, validate_every=2, keep=3)
    run = Session(tmp_path, optim=optim, trainer=trainer, model=tiny(extra=True))
    run.fit()
    last, _ = checkpoint.load(checkpoint.latest(run.checkpoints))
    baseline = run.run.model.decoder.attention.baseline
    assert torch.equal(baseline, last["buffers"]["decoder.attention.baseline"])
    assert baseline != 0
    assert not torch.equal(run.run.model.output.bias, last["model"]["output.bias"])  # this one was averaged


def test_guided_alignment_by_hand():
    weights = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]], requires_grad=True)
    links = torch.tensor([[0.0, 0.5, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    found = guided_alignment(weights, links)
    assert found.item() == pytest.approx(math.log(4) - math.log(1e-9), rel=1e-6)
    found.backward()
    assert weights.grad.tolist() == [[0.0, -2.0, -2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_links_become_rows_that_share_their_mass():
    examples = [Example([5, 6], [7, 8, 9], [(0, 0), (1, 0), (1, 2)]), Example([5], [7]), Example([5, 6, 7], [4], [])]
    links = batch_of(examples).links
    assert links.shape == (3, 4, 4)
    assert links[0].tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]  # and EOS to EOS
    assert not links[1].any()
    assert links[2].nonzero().tolist() == [[1, 3]]
    assert batch_of(corpus()[:3]).links is None
    padded = collate(examples, range(3), 8)
    assert padded.links.shape == (3, 8, 8)
    assert torch.equal(padded.links[:, :4, :4], links)
    assert padded.links.sum() == links.sum()
    assert batch_of(examples).to(torch.device("meta")).links.is_meta


def test_guided_alignment_is_the_mean_over_the_tokens_with_links():
    examples = reversed_corpus(6)
    examples[0] = dataclasses.replace(examples[0], links=None)
    model, batch = tiny().train(), batch_of(examples)
    with torch.no_grad():
        weights = model(batch, need_weights=True).weights
    costs = []
    for row, e in enumerate(examples):
        if e.links is not None:
            costs += [-math.log(weights[row, j, i]) for i, j in (*e.links, (len(e.source), len(e.target)))]
    plain = update(model, [batch], make_optimizer(model, PLAIN), PLAIN, rate=0.0)
    guided = update(model, [batch], make_optimizer(model, GUIDED), GUIDED, rate=0.0)
    assert guided.loss == pytest.approx(plain.loss + 0.7 * sum(costs) / len(costs), rel=1e-5)
    assert (guided.nll, guided.tokens) == (plain.nll, plain.tokens)
    assert guided.norm != plain.norm
    # R-Drop without dropout changes nothing of it
    both = dataclasses.replace(GUIDED, rdrop=3.0)
    assert update(model, [batch], make_optimizer(model, both), both, rate=0.0).loss == pytest.approx(guided.loss)


@pytest.mark.parametrize("sizes", [(12,), (3, 9), (1,) * 12], ids=str)
def test_micro_batches_equal_one_big_batch(sizes):
    examples = reversed_corpus(12)
    examples[2:5] = [dataclasses.replace(e, links=None) for e in examples[2:5]]
    optim = dataclasses.replace(GUIDED, eps=1e-4)

    def trained(*parts):
        model, start, batches = tiny().train(), 0, []
        for size in parts:
            batches.append(batch_of(examples[start : start + size]))
            start += size
        made = update(model, batches, make_optimizer(model, optim), optim, rate=0.01)
        return [p.detach() for p in model.parameters()], made

    whole, one = trained(12)
    parts, many = trained(*sizes)
    assert many.loss == pytest.approx(one.loss, rel=1e-5)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_weights_are_made_only_where_they_are_needed(monkeypatch):
    model, asked = tiny(), []
    forward = model.decoder.forward
    monkeypatch.setattr(
        model.decoder,
        "forward",
        lambda *args, need_weights: asked.append(need_weights) or forward(*args, need_weights=need_weights),
    )
    linked, bare = batch_of(reversed_corpus(4)), batch_of(corpus(4))
    for batch, config in ((linked, PLAIN), (bare, GUIDED), (linked, GUIDED)):
        batch_loss(model, batch, config)
    assert asked == [False, False, True]
