"""What tests of whole commands share: `s2s` run in this process, and tiny models that are trained in seconds."""

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Sequences of two to six of twelve syllables: small enough to be learned in seconds on one core.
TINY = (
    *("threads=1", "device=cpu", "corpus.symbols=12", "corpus.max_length=6", "corpus.train=1000", "corpus.dev=50"),
    *("corpus.test=60", "encoder.width=48", "decoder.width=48", "trainer.max_source=20", "trainer.max_target=20"),
    *("trainer.validate_every=1000", "trainer.samples=1", "optim.warmup=10", "trainer.batch_tokens=500"),
)


@dataclass(frozen=True)
class Done:
    """What a command left: exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Output records; only a line feed ends one."""
        assert self.out.endswith("\n") or not self.out
        return self.out.split("\n")[:-1]


def call(*argv: Any, stdin: bytes | str = b"") -> Done:
    """Run `s2s ARGV` in this process with binary standard streams, as a shell would."""
    from s2s.cli import main

    data = stdin.encode() if isinstance(stdin, str) else stdin
    kept = sys.stdin, sys.stdout, sys.stderr
    out, err = io.BytesIO(), io.BytesIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(data))
    sys.stdout, sys.stderr = io.TextIOWrapper(out), io.TextIOWrapper(err, write_through=True)
    try:
        code = main([str(word) for word in argv])
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    finally:
        sys.stdout.detach()  # else the buffers are closed with their wrappers
        sys.stderr.detach()
        sys.stdin, sys.stdout, sys.stderr = kept
    return Done(code, out.getvalue().decode(), err.getvalue().decode())


def trained(folder: Path, recipe: str, *changes: str) -> Path:
    """The run folder of a tiny model that is trained now."""
    done = call("train", recipe, *TINY, *changes, f"output={folder}")
    assert done.code == 0, done.err
    return Path(done.out.strip())
