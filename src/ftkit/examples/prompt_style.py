"""How training makes a prompt of a question, so that the tuned model is asked in the same way later."""

import re


def asked(question: str, style: str | None = None, spaced_digits: bool = False) -> str:
    """Return a question as a prompt, in a style with ``{question}`` in it; perhaps with its digits :func:`spaced`.

    Example:
        >>> asked("47 + 5", "{question} =", spaced_digits=True)
        '4 7 + 5 ='
    """
    return (style or "{question}").replace("{question}", spaced(question) if spaced_digits else question)


def spaced(text: str) -> str:
    """Return a text with a space between adjacent digits.

    Example:
        >>> spaced("-120")
        '-1 2 0'
    """
    return re.sub(r"(?<=\d)(?=\d)", " ", text)
