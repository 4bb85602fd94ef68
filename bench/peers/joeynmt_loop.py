"""JoeyNMT's commands with outputs of at least N tokens: joeynmt_loop.py N test CONFIG ...

Its searches take min_output_length, but its configuration never reaches them, so outputs end where the model likes.
"""

import sys
from functools import partial

from joeynmt import search
from joeynmt.__main__ import main

least = int(sys.argv.pop(1))
for name in ("recurrent_greedy", "transformer_greedy", "beam_search"):
    setattr(search, name, partial(getattr(search, name), min_output_length=least))
main()
