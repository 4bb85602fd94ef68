"""Work of the same sizes in plain torch: yardstick_loop.py KIND train CORPUS UPDATES, or KIND decode CORPUS BEAM.

KIND lstm: torch's fused LSTMs, without attention. KIND transformer: nn.Transformer. Decoding asks the model for the
next tokens as a search does, with random weights, without the search; the Transformer reads its whole output each time.
"""

import os
import random
import sys
import time
from pathlib import Path

import torch
from torch import nn

from bench.peers.ids import Ids

kind, task, corpus, number = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
BATCH, BUDGET, WIDTH, EMBEDDING, FORCED = 64, 4096, 512, 256, 15
PAD, EOS = 0, 1
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.manual_seed(1)
ids = Ids(corpus, first=2, unknown=EOS, padding=PAD, end=EOS)
pad, read = ids.pad, ids.read


class Recurrent(nn.Module):
    """Two LSTMs, the second of which starts where the first ends, and an output layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(size, EMBEDDING), nn.Embedding(size, EMBEDDING)
        self.encoder = nn.LSTM(EMBEDDING, WIDTH // 2, bidirectional=True, batch_first=True)
        self.decoder = nn.LSTM(EMBEDDING, WIDTH, batch_first=True)
        self.output, self.dropout = nn.Linear(WIDTH, size), nn.Dropout(0.3)

    def encode(self, source: torch.Tensor) -> tuple[torch.Tensor, ...]:
        _, (hidden, cell) = self.encoder(self.dropout(self.source(source)))
        return tuple(torch.cat([*state], 1).unsqueeze(0) for state in (hidden, cell))

    def forward(self, source: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.decoder(self.dropout(self.target(inputs)), self.encode(source))[0]
        dropped: torch.Tensor = self.dropout(features)
        return dropped

    def decode(self, source: torch.Tensor, beam: int) -> None:
        first, second = self.encode(source)
        state = (first.repeat_interleave(beam, 1), second.repeat_interleave(beam, 1))
        tokens = torch.full((len(source) * beam, 1), EOS)
        for _ in range(FORCED):
            features, state = self.decoder(self.target(tokens), state)
            tokens = next_tokens(self.output(features[:, -1]), beam)


class Transformer(nn.Module):
    """3 + 3 layers, one embedding for source, target and output."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(size, EMBEDDING), nn.Embedding(512, EMBEDDING)
        self.layers = nn.Transformer(EMBEDDING, 4, 3, 3, 1024, 0.1, batch_first=True, norm_first=True)
        self.dropout = nn.Dropout(0.1)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING**-0.5)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = self.dropout(self.embedding(tokens) + self.places.weight[: tokens.shape[1]])
        return embedded

    def output(self, features: torch.Tensor) -> torch.Tensor:
        return features @ self.embedding.weight.T

    def read(self, inputs: torch.Tensor, memory: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        length = inputs.shape[1]
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        features: torch.Tensor = self.layers.decoder(
            self.embed(inputs), memory, later, memory_key_padding_mask=hidden, tgt_is_causal=True
        )
        return features

    def forward(self, source: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        hidden = source == PAD
        return self.read(inputs, self.layers.encoder(self.embed(source), src_key_padding_mask=hidden), hidden)

    def decode(self, source: torch.Tensor, beam: int) -> None:
        hidden = source == PAD
        memory = self.layers.encoder(self.embed(source), src_key_padding_mask=hidden)
        memory, hidden = memory.repeat_interleave(beam, 0), hidden.repeat_interleave(beam, 0)
        inputs = torch.full((len(memory), 1), EOS)
        for _ in range(FORCED):
            logits = self.output(self.read(inputs, memory, hidden)[:, -1])
            inputs = torch.cat([inputs, next_tokens(logits, beam)], 1)


def next_tokens(logits: torch.Tensor, beam: int) -> torch.Tensor:
    return logits.log_softmax(-1).topk(beam).indices[:, :1]


def batches_of(sources: list[list[int]], targets: list[list[int]]) -> list[list[int]]:
    order = sorted(range(len(targets)), key=lambda row: (len(targets[row]), len(sources[row])))
    made: list[list[int]] = [[]]
    for row in order:
        tokens = sum(len(targets[other]) for other in made[-1]) + len(targets[row])
        if len(made[-1]) == BATCH if kind == "lstm" else tokens > BUDGET:
            made.append([])
        made[-1].append(row)
    random.Random(1).shuffle(made)
    return made


model = (Recurrent if kind == "lstm" else Transformer)(ids.size)
if task == "train":
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    sources, targets = read("train.en"), read("train.de")
    for update, rows in enumerate(batches_of(sources, targets)[:number], 1):
        source, target = pad([sources[row] for row in rows]), pad([targets[row] for row in rows])
        inputs = torch.cat([torch.full((len(rows), 1), EOS), target[:, :-1]], 1)
        real = target != PAD
        logits = model.output(model(source, inputs)[real])
        loss = nn.functional.cross_entropy(logits, target[real])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        print(f"update {update} tokens {int(real.sum())} loss {loss.item():.3f}", flush=True)
else:
    model.eval()
    lines = sorted(read("test.en"), key=len)
    parts = [pad(lines[start : start + BATCH]) for start in range(0, len(lines), BATCH)]
    with torch.inference_mode():
        model.decode(parts[0], number)
        began = time.perf_counter()
        for part in parts:
            model.decode(part, number)
    print(f"{len(lines)} sentences in {time.perf_counter() - began:.3f} s", flush=True)
