"""`s2s serve MODEL...`: one HTTP server for several models, and a page to try them."""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket

from s2s.command import text
from s2s.errors import RunError, UsageError

KEY_VARIABLE = "S2S_API_KEY"
GRACE = 20  # seconds that running requests have to end when the server is stopped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s serve`."""
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="a run folder or a bundle folder, or NAME=FOLDER to name it"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine only)")
    parser.add_argument("--port", type=int, default=8000, metavar="P", help="port; 0: any free one (8000)")
    parser.add_argument(
        "--api-key", metavar="KEY", help=f"that clients must show (the environment variable {KEY_VARIABLE})"
    )
    parser.add_argument("--max-body", type=int, default=1_000_000, metavar="N", help="bytes of a request (1000000)")
    parser.add_argument("--max-waiting", type=int, default=64, metavar="N", help="requests that wait at a time (64)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (all cores)")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE", help="that the models were trained with"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted. Raises S2SError for a wrong model or address, or where the extra is missing."""
    if any(importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn", "prometheus_client")):
        raise UsageError("serving needs packages that aren't there", hint='Install them: pip install "s2s[serve]"')
    for name in ("max_body", "max_waiting"):
        if getattr(args, name) < 1:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} is out of range", expected="at least 1", found=str(getattr(args, name)))
    key = args.api_key if args.api_key is not None else os.environ.get(KEY_VARIABLE)
    if key is not None and not key.strip():
        raise UsageError("an empty API key would let everyone in", where="--api-key")

    import uvicorn

    from s2s.serve.app import build_app
    from s2s.serve.guard import LOOPBACK
    from s2s.serve.models import load_models

    text.set_threads(args)
    with listen(args.host, args.port) as listening:
        models = load_models(args.models, device=args.device, plugins=args.plugin)
        host = f"[{args.host}]" if ":" in args.host else args.host
        hosts = LOOPBACK if host in LOOPBACK else ("*",)
        app = build_app(models, api_key=key, max_body=args.max_body, max_waiting=args.max_waiting, hosts=hosts)
        text.note(f"serving {', '.join(models)} at http://{host}:{listening.getsockname()[1]}")
        if host not in LOOPBACK and key is None:
            text.note("whoever reaches this address may use the models: there is no --api-key")
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=GRACE
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:  # its usual end, raised again once all is closed
            text.note("stopped")
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, and answers without delay. Raises RunError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.create_server((host, port), family=family)
        # else the second part of each answer waits for the client's acknowledgement of the first, 40 ms
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"can't listen ({reason})", where=f"{host}:{port}", hint="Take another --port") from error
