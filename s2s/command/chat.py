"""`s2s chat MODEL`: a conversation at the terminal; of piped lines, a reply each."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from s2s.command import text
from s2s.errors import DataError, UsageError
from s2s.files import parse_json

if TYPE_CHECKING:
    from s2s.task.conversation import Conversation
    from s2s.task.generate import Request

_HELP = """\
/reset           forget what was said
/retry           another reply to your last message
/why             what the last reply looked at
/set KEY=VALUE   change the search, for example beam=5 or temperature=0.8; /set alone shows it
/save FILE       write the conversation as JSON, to be read by --format jsonl
/quit            leave (as Ctrl-D)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s chat`."""
    text.add_model_arguments(parser)
    text.add_text_arguments(parser, overlong=("turns", "refuse"))
    text.add_request_arguments(parser)
    text.add_search_arguments(parser)
    text.add_rerank_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Talk. Raises S2SError for a wrong model, option or input."""
    if args.format == "jsonl":
        flags: Counter[str] = Counter()
        text.write_results(text.run_models(args, _histories(args, flags), task="dialogue"), args)
        text.note_flags(flags)
        return 0
    if args.workers != 1:
        raise UsageError("a conversation is one after the other", where="--workers", hint="Add --format jsonl")
    if args.nbest != 1:
        raise UsageError("a conversation has one reply a turn", where="--nbest", hint="Add --format jsonl")
    if args.input == "-" and args.output == "-" and sys.stdin is not None and sys.stdin.isatty():
        from s2s.command.chat_terminal import talk

        return talk(_conversation(args, alignment=True), _HELP)
    text.write_lines(_replies(args), args.output, args.input)
    return 0


def _conversation(args: argparse.Namespace, **more: Any) -> Conversation:
    from s2s.task.conversation import Conversation
    from s2s.task.model import load

    text.set_threads(args)
    model = load(args.model, *args.ensemble, device=args.device, plugins=args.plugin)
    asked = {"prefix": args.prefix, "constraints": tuple(args.constraint), "banned": tuple(args.ban)}
    settings = {"overlong": args.overlong, **text.rerank(args), **text.search_changes(args), **more}
    return Conversation(model, asked, **settings)


def _replies(args: argparse.Namespace) -> Iterator[str]:
    """A line for each line: one conversation. A blank line is no turn, and stays blank."""
    from s2s.text.lines import is_blank, read_lines

    flags: Counter[str] = Counter()
    conversation = _conversation(args)
    with read_lines(args.input, errors=args.errors) as lines:
        for line in lines:
            if is_blank(line):
                yield ""
                continue
            result = conversation.say(line)
            flags.update(result.flags)
            yield result.text
            if args.output == "-":
                sys.stdout.flush()  # who pipes a conversation waits for the reply
        if lines.count == 0:
            text.note(f"{lines.name} is empty: nothing to do")
        if lines.replaced:
            text.note(f"{lines.name}: {lines.replaced} invalid bytes were replaced by U+FFFD")
    text.note_flags(flags)


def _histories(args: argparse.Namespace, flags: Counter[str]) -> Iterator[Request]:
    """A request for each line: messages, or an object that holds them and what is asked of the reply."""
    from s2s.task.chat import context
    from s2s.text.lines import read_lines

    with read_lines(args.input, errors=args.errors) as lines:
        for line in lines:
            where = f"{lines.name}:{lines.count}"
            if not line.strip():
                yield text.request({"text": ""}, where, args)
                continue
            record = parse_json(line.encode("utf-8", "replace"), where)
            record = {"messages": record} if isinstance(record, list) else record
            if not isinstance(record, dict) or not isinstance(record.get("messages"), list):
                expected = 'a list of {"role", "content"}, or an object with such a list as `messages`'
                raise DataError("is no conversation", where=where, expected=expected)
            try:
                asked = context(record.pop("messages"))
            except UsageError as error:
                raise DataError(str(error), where=where) from None
            flags.update(asked.flags)
            yield text.request({**record, "text": asked.text}, where, args)
        if lines.count == 0:
            text.note(f"{lines.name} is empty: nothing to do")
