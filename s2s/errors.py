"""Errors that a user reads: one line that says what, where, expected and found, and what to type next."""

from __future__ import annotations


class S2SError(Exception):
    """A failure with a message for the user. The command line prints it as one line and exits with `exit_code`.

    what: what went wrong, in a few words, naming the value.
    where: a file:line, a key or a command option.
    expected, found: what should have stood there and what stood there.
    hint: what to do or type next.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.what, self.where, self.expected, self.found, self.hint = what, where, expected, found, hint
        parts = [what if where is None else f"{where}: {what}"]
        if expected is not None:
            parts.append(f"expected {expected}")
        if found is not None:
            parts.append(f"found {found}")
        text = "; ".join(parts)
        if hint is not None:
            text = f"{text}. {hint}"
        super().__init__(" ".join(text.split()))


class RunError(S2SError):
    """Something failed while running: a diverged loss, a full disk. Exit code 1."""


class NonFiniteError(RunError):
    """A tensor holds NaN or infinity. Training skips such a step; elsewhere it ends the run. Exit code 1."""


class UsageError(S2SError):
    """A wrong command line or call. Exit code 2."""

    exit_code = 2


class ConfigError(UsageError):
    """A key or value of the configuration is wrong. Exit code 2."""


class DataError(UsageError):
    """A corpus or an input text is wrong. Exit code 2."""


class BundleError(UsageError):
    """A model folder is damaged, unsafe or too new. Exit code 2."""
