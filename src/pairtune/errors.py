"""The one exception for mistakes of the user: the command line prints it as one line and exits with 2."""


class InputError(Exception):
    """Something given to pairtune cannot be used.

    The message is one plain sentence that says where (file, line, field), what is wrong, and what to do.
    """
