"""One module a command: `add_arguments(parser)` and `run(args) -> exit code`; `s2s.cli` imports them when asked."""
