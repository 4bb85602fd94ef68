"""log.jsonl: one object a logged event, and the same numbers for TensorBoard where asked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s2s.errors import UsageError
from s2s.files import write_atomic


class RunLog:
    """Appends events to `path`. An event has the key "event": start, train, valid, skip, graphs (why
    updates aren't recorded), stop, end or test.

    A resumed run drops what was logged after its checkpoint (`rewind`), so that the log reads as one run.
    """

    def __init__(self, path: Path, *, tensorboard: Path | None = None) -> None:
        self.path = path
        self.writer = None if tensorboard is None else _tensorboard(tensorboard)

    def write(self, event: str, **values: Any) -> None:
        """Append an event. Numbers that aren't finite become null, since JSON has none."""
        record = {"event": event, **{key: _plain(value) for key, value in values.items()}}
        with open(self.path, "a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
        if self.writer is not None and "step" in values:
            for key, value in values.items():
                if isinstance(value, float):
                    self.writer.add_scalar(f"{event}/{key}", value, values["step"])

    def rewind(self, step: int) -> None:
        """Drop the events after `step`, and what a killed process left half written."""
        kept = [
            record
            for record in read_log(self.path)
            if record.get("step", 0) <= step and record["event"] not in ("end", "test")
        ]
        write_atomic(self.path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept).encode())

    def close(self) -> None:
        """Flush what TensorBoard still holds."""
        if self.writer is not None:
            self.writer.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The events of a log; a last line that was cut off is left out."""
    records = []
    if path.exists():
        for line in path.read_bytes().split(b"\n"):
            try:
                record = json.loads(line)
            except ValueError:  # no whole object, or cut off within a character
                continue
            if isinstance(record, dict) and "event" in record:
                records.append(record)
    return records


def training_speed(events: Sequence[Mapping[str, Any]]) -> float | None:
    """Target tokens a second: the median of the log's lines (padding never counted; validation and saving excluded)."""
    speeds = sorted(event["tokens_per_second"] for event in events if event.get("tokens_per_second"))
    return float(speeds[len(speeds) // 2]) if speeds else None


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "trainer.tensorboard=true needs the package tensorboard", hint="Type: pip install 's2s[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder))
