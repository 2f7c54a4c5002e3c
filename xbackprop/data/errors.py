"""The one exception for data files that cannot be used."""


class DataError(ValueError):
    """A data file or data set name that cannot be used.

    The message names the file and, where there is one, the line and the column; it fits on a
    single line, so that a command line program can print it as it is.
    """


def quote(value: object, limit: int = 40) -> str:
    """Return what stands in a file the way a one-line message can show it: quoted and not long."""
    text = repr(value[: limit + 1]) if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
