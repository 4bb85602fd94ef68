"""Train an encoder and decoder of torch's fused LSTM, without attention: yardstick_loop.py CORPUS UPDATES."""

import os
import random
import sys
from pathlib import Path

import torch
from torch import nn

corpus, updates = Path(sys.argv[1]), int(sys.argv[2])
BATCH, WIDTH, EMBEDDING = 64, 512, 256
PAD, EOS = 0, 1
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.manual_seed(1)
pieces = (corpus / "vocabulary").read_text(encoding="utf-8").split("\n")[:-1]
ids = {piece: place for place, piece in enumerate(pieces, 2)}


def read(name: str) -> list[list[int]]:
    lines = (corpus / name).read_text(encoding="utf-8").splitlines()
    return [[*(ids.get(piece, EOS) for piece in line.split()), EOS] for line in lines]


def pad(rows: list[list[int]]) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


class Model(nn.Module):
    """Two LSTMs, the second of which starts where the first ends, and an output layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(size, EMBEDDING), nn.Embedding(size, EMBEDDING)
        self.encoder = nn.LSTM(EMBEDDING, WIDTH // 2, bidirectional=True, batch_first=True)
        self.decoder = nn.LSTM(EMBEDDING, WIDTH, batch_first=True)
        self.output, self.dropout = nn.Linear(WIDTH, size), nn.Dropout(0.3)

    def forward(self, source: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        _, (hidden, cell) = self.encoder(self.dropout(self.source(source)))
        first = tuple(torch.cat([*state], 1).unsqueeze(0) for state in (hidden, cell))
        features: torch.Tensor = self.decoder(self.dropout(self.target(inputs)), first)[0]
        return self.dropout(features)


model = Model(len(pieces) + 2)
optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
sources, targets = read("train.en"), read("train.de")
order = sorted(range(len(targets)), key=lambda row: (len(targets[row]), len(sources[row])))
batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
random.Random(1).shuffle(batches)
for update, rows in enumerate(batches[:updates], 1):
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
