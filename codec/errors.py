"""Every failure a user can cause or meet, as one small tree.

PgolfError            what, where, have versus need, next step     exit 3
├── CodecError        an artifact that is corrupt or unsupported   exit 3
├── InputError        a file that cannot be used as what it claims exit 3
├── UsageError        an argument that makes no sense              exit 2
├── LimitError        a verdict failed or the byte cap is exceeded exit 1
└── EnvironmentLacks  a package or device is missing               exit 4
"""


def printable(value: object, limit: int | None = None) -> str:
    """Its first characters on one line, without any that would move a terminal's cursor, hide text or turn it round."""
    text = str(value)[:limit]
    return "".join(each if each.isprintable() else " " if each.isspace() else "?" for each in text)


class PgolfError(Exception):
    """One sentence for the user.

    message: what is wrong, with have versus need.  where: file or tensor.  hint: the next step.
    """

    exit_code = 3

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message, self.where, self.hint = message, where, hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return printable(f"{text}; {self.hint}" if self.hint else text)


class CodecError(PgolfError):
    """An artifact that is corrupt, truncated, or of a version this decoder does not know."""


class InputError(PgolfError):
    """A file that is missing, empty, or not what it should be."""


class UsageError(PgolfError):
    """An argument that makes no sense; exit code 2."""

    exit_code = 2


class LimitError(PgolfError):
    """A verdict that failed, or bytes over the cap; exit code 1."""

    exit_code = 1


class EnvironmentLacks(PgolfError):
    """Something the machine would need: a package, a device; exit code 4."""

    exit_code = 4
