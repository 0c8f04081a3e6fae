"""One way to fail."""


class Error(Exception):
    """Anything that the caller can mend: a wrong shape, a wrong dtype, a bad file. One sentence: what was expected,
    what was found."""


def require(condition, sentence):
    """Raises Error unless the condition holds."""
    if not condition:
        raise Error(sentence)
