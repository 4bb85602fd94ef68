"""What changes over time: the learning rate, and the share of scheduled sampling."""

from __future__ import annotations

import math

from s2s.train.options import OptimConfig


def rate(config: OptimConfig, step: int, progress: float) -> float:
    """The learning rate of update `step` (from 0).

    progress: share of the run that is over, 0 to 1, by the limit that is nearest (steps, epochs or minutes); cosine and
    linear fall along it from the peak to `final` times the peak. inverse_sqrt falls as sqrt(warmup / step). constant
    stays at the peak. Warm-up caps them all: it rises linearly to the peak over `warmup` steps, so nothing jumps.
    """
    number = step + 1
    if config.schedule == "inverse_sqrt":
        share = math.sqrt(max(1, config.warmup) / number)
    elif config.schedule == "constant":
        share = 1.0
    else:
        left = min(1.0, max(0.0, 1.0 - progress))
        shape = left if config.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))
        share = config.final + (1 - config.final) * shape
    return config.lr * min(share, number / max(1, config.warmup))


def sampling_share(config: OptimConfig, progress: float) -> float:
    """Share of the target inputs that are the model's own predictions: 0 at first, `scheduled_sampling` at the end.

    The linear schedule of Bengio et al. 2015 (arXiv 1506.03099), section 2.4. progress: see `rate`.
    """
    return config.scheduled_sampling * min(1.0, max(0.0, progress))
