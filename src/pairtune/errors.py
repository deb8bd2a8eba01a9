"""The exceptions for mistakes of the user: the command line prints them as one line and exits with 2."""


class InputError(Exception):
    """Something given to pairtune cannot be used.

    The message is one plain sentence that says where (file, line, field), what is wrong, and what to do.
    """


class DivergedError(InputError):
    """A model's numbers are not finite any more: of an arm of a comparison a result, not a mistake."""
