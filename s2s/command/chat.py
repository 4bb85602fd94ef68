"""`s2s chat MODEL`: a conversation at the terminal; of piped lines, a reply each."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from s2s.command import text
from s2s.errors import DataError, UsageError

if TYPE_CHECKING:
    from s2s.task.conversation import Conversation
    from s2s.task.request import Request

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
        text.write_results(text.run_models(args, text.read_requests(args, _history), task="dialogue"), args)
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
    settings = {"overlong": args.overlong, **text.rerank_changes(args), **text.search_changes(args), **more}
    return Conversation(model, asked, **settings)


def _replies(args: argparse.Namespace) -> Iterator[str]:
    """A line for each line: one conversation. A blank line is no turn, and stays blank."""
    from s2s.text.lines import is_blank

    flags: Counter[str] = Counter()
    conversation = _conversation(args)
    for line, _ in text.input_lines(args):
        if is_blank(line):
            yield ""
            continue
        result = conversation.say(line)
        flags.update(result.flags)
        yield result.text
        if args.output == "-":
            sys.stdout.flush()  # who pipes a conversation waits for the reply
    text.note_flags(flags)


def _history(record: object, where: str, args: argparse.Namespace) -> Request:
    """What messages ask for, or an object that holds them and what is asked of the reply."""
    from s2s.task.chat import context

    record = {"messages": record} if isinstance(record, list) else record
    if not isinstance(record, dict) or not isinstance(record.get("messages"), list):
        expected = 'a list of {"role", "content"}, or an object with such a list as `messages`'
        raise DataError("is no conversation", where=where, expected=expected)
    try:
        asked = context(record["messages"])
    except UsageError as error:
        raise DataError(str(error), where=where) from None
    others = {key: value for key, value in record.items() if key != "messages"}
    return replace(text.request({**others, "text": asked.text}, where, args), flags=asked.flags)
