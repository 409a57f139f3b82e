"""The project's errors: one base, and the kinds that a person can mend."""

import difflib


class LwnbError(Exception):
    """What the user can mend: its message names the value, what is allowed and what to do.
    The commands show nothing more."""


class ParamsError(LwnbError, ValueError):
    """A parameter that cannot be: the message names it, its value, and what is allowed."""


def nearest(name: str, known) -> str:
    """`"; did you mean 'x'?"`, or nothing when no known name is near."""
    match = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
    return f"; did you mean {match[0]!r}?" if match else ""


def shown(name: str) -> str:
    """A name as it can be printed anywhere: bytes that are no UTF-8 read as Latin-1,
    line breaks and the like escaped."""
    try:
        name.encode()
    except UnicodeEncodeError:
        name = name.encode(errors="surrogateescape").decode("latin-1")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


class DataError(LwnbError, ValueError):
    """Images that are not there or not what they should be: the message says what is wrong and what to do."""

    def __init__(self, message: str):
        super().__init__(shown(message))


class WeightsError(LwnbError, RuntimeError):
    """Weights that cannot be had, read or loaded: the message says what failed and what to do."""


class BookError(LwnbError, RuntimeError):
    """A book that cannot be built: the message says what is missing, or repeats the build's warnings."""
