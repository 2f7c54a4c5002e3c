"""The one exception for data files that cannot be used."""


class DataError(ValueError):
    """A data file or data set name that cannot be used.

    The message names the file and, where there is one, the line and the column; it fits on a
    single line, so that a command line program can print it as it is.
    """
