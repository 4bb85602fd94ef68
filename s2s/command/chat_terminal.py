"""The conversation at a terminal: lines that can be edited, replies as they are written, commands that begin with /."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from s2s.command.text import note
from s2s.errors import S2SError, UsageError
from s2s.files import write_atomic
from s2s.task.conversation import Conversation

_KEPT = 1000  # lines of history


def talk(conversation: Conversation, help_text: str) -> int:
    """Read, reply, until the input ends. Returns the exit code."""
    note("type a message; /help shows the commands, Ctrl-D ends")
    history = _line_editing()
    terminal = _Terminal(conversation, help_text)
    try:
        while True:
            try:
                line = input("you: ")
            except EOFError:
                print()
                return 0
            except KeyboardInterrupt:
                print("\n(Ctrl-D or /quit leaves)")
                continue
            if terminal.take(line.strip()):
                return 0
    finally:
        _keep(history)


class _Terminal:
    """What a line does."""

    def __init__(self, conversation: Conversation, help_text: str) -> None:
        self._conversation = conversation
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": lambda rest: print(help_text),
            "/reset": lambda rest: self._reset(),
            "/retry": lambda rest: self._retry(),
            "/why": lambda rest: self._why(),
            "/set": self._set,
            "/save": self._save,
        }

    def take(self, line: str) -> bool:
        """Do what a line says; whether it was the last."""
        name, _, rest = line.partition(" ")
        if name == "/quit":
            return True
        try:
            if name in self._commands:
                self._commands[name](rest.strip())
            elif name.startswith("/") and name[1:].isalpha():
                print(f"there is no {name}; /help shows what there is")
            elif line:
                self._tell(lambda hear: self._conversation.say(line, hear))
        except S2SError as error:
            print(f"({error})")
        return False

    def _tell(self, answer: Callable[[Callable[[str], None]], Any]) -> None:
        """Print a reply while it is written. Ctrl-C takes the turn back."""

        def hear(piece: str) -> None:
            print(piece, end="", flush=True)

        print("s2s: ", end="", flush=True)
        try:
            result = answer(hear)
        except KeyboardInterrupt:
            print("\n(stopped; this turn is forgotten)")
            return
        print()
        told = {
            "turns_dropped": "the oldest turns no longer fit into what the model reads",
            "truncated": "your message is longer than the model reads: its end was cut off",
            "unfinished": "the reply was cut off at its length limit",
        }
        for flag, meaning in told.items():
            if result is not None and flag in result.flags:
                print(f"({meaning})")

    def _reset(self) -> None:
        self._conversation.reset()
        print("(forgotten)")

    def _retry(self) -> None:
        if self._conversation.last is None:
            print("(there is no reply yet)")
        else:
            self._tell(self._conversation.retry)

    def _why(self) -> None:
        result = self._conversation.last
        if result is None:
            print("(there is no reply yet)")
        elif result.alignment is None:
            print("(this model tells no attention)")
        else:
            from rich.console import Console

            from s2s.show.heat import heat

            Console(highlight=False).print(heat(result))

    def _set(self, rest: str) -> None:
        if not rest:
            print(", ".join(f"{key}={value}" for key, value in self._conversation.shown().items()))
            return
        changes: dict[str, Any] = {}
        for word in rest.split():
            key, equals, value = word.partition("=")
            if not equals:
                raise UsageError("expected KEY=VALUE", where="/set", found=word)
            try:
                changes[key] = json.loads(value)
            except ValueError:
                changes[key] = value
        self._conversation.change(**changes)

    def _save(self, rest: str) -> None:
        if not rest:
            raise UsageError("expected the name of a file", where="/save")
        path = Path(rest).expanduser()
        if path.exists():
            raise UsageError("this file is there already", where=f"/save {path}", hint="Name another")
        record = {"messages": self._conversation.messages}
        try:
            write_atomic(path, (json.dumps(record, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            raise UsageError("can't be written", where=f"/save {path}", found=error.strerror or str(error)) from None
        print(f"(saved to {path})")


def _line_editing() -> Path | None:
    """Arrow keys and history where the system has them. Returns the file that keeps what was typed."""
    try:
        import readline
    except ImportError:  # Windows has its own
        return None
    root = os.environ.get("XDG_STATE_HOME", "")
    path = (Path(root) if os.path.isabs(root) else Path.home() / ".local" / "state") / "s2s" / "chat_history"
    with contextlib.suppress(OSError):  # the first time there is none
        readline.read_history_file(path)
    readline.set_history_length(_KEPT)
    return path


def _keep(history: Path | None) -> None:
    if history is None:
        return
    import readline

    try:
        history.parent.mkdir(parents=True, exist_ok=True)
        readline.write_history_file(history)
        history.chmod(0o600)
    except OSError as error:
        print(f"(the history wasn't kept: {error})", file=sys.stderr)
