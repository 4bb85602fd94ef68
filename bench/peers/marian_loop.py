"""Train and decode a Marian model: marian_loop.py train|decode CORPUS MODEL NUMBER (of updates, or of beams)."""

import os
import random
import sys
import time
from pathlib import Path

import torch
from transformers import MarianConfig, MarianMTModel

from bench.peers.ids import Ids

task, corpus, folder, number = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
THREADS, FORCED, BUDGET = int(os.environ["OMP_NUM_THREADS"]), 15, 4096
UNK, PAD, BOS, EOS = range(4)
torch.set_num_threads(THREADS)
torch.manual_seed(1)
ids = Ids(corpus, first=4, unknown=UNK, padding=PAD, end=EOS)
pad, read = ids.pad, ids.read

if task == "train":
    config = MarianConfig(
        vocab_size=ids.size,
        decoder_vocab_size=ids.size,
        d_model=256,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=1024,
        decoder_ffn_dim=1024,
        max_position_embeddings=128,
        dropout=0.1,
        activation_function="relu",
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=BOS,
        forced_eos_token_id=None,
        scale_embedding=True,
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=True,
    )
    model = MarianMTModel(config).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    sources, targets = read("train.en"), read("train.de")
    order = sorted(range(len(targets)), key=lambda row: (len(targets[row]), len(sources[row])))
    batches: list[list[int]] = [[]]
    for row in order:
        if sum(len(targets[other]) for other in batches[-1]) + len(targets[row]) > BUDGET:
            batches.append([])
        batches[-1].append(row)
    random.Random(1).shuffle(batches)
    for update, rows in enumerate(batches[:number], 1):
        source, target = pad([sources[row] for row in rows]), pad([targets[row] for row in rows])
        inputs = torch.cat([torch.full((len(rows), 1), BOS), target[:, :-1]], 1)
        logits = model(input_ids=source, attention_mask=(source != PAD).long(), decoder_input_ids=inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        print(f"update {update} tokens {int((target != PAD).sum())} loss {loss.item():.3f}", flush=True)
    model.save_pretrained(folder)
else:
    model = MarianMTModel.from_pretrained(folder).eval()
    sources = sorted(read("test.en"), key=len)
    batches = [sources[start : start + 64] for start in range(0, len(sources), 64)]
    forced = {"min_new_tokens": FORCED, "max_new_tokens": FORCED, "do_sample": False, "num_beams": number}

    def decode(rows: list[list[int]]) -> None:
        source = pad(rows)
        with torch.inference_mode():
            model.generate(input_ids=source, attention_mask=(source != PAD).long(), **forced)

    decode(batches[0])
    began = time.perf_counter()
    for rows in batches:
        decode(rows)
    print(f"{len(sources)} sentences in {time.perf_counter() - began:.3f} s", flush=True)
