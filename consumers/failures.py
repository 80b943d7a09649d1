"""What a producer is told of an exception that a handler raised, as its queue's policy says. No I/O."""

from __future__ import annotations

import traceback
from typing import Final

from bridge.job import Errors

MAX_MESSAGE_CHARS: Final = 1000
"""Of a failure's text: enough for a sentence and a place, too little for a document that an exception quotes."""
MAX_TRACEBACK_CHARS: Final = 8000
"""Of a traceback: its end, where the cause is. No value of a variable is in it but what the messages say."""


def words(error: BaseException, errors: Errors) -> str:
    """What may be told of an exception beside the name of its class."""
    if errors == "type":
        return ""
    try:
        if errors == "message":
            return str(error)[:MAX_MESSAGE_CHARS]
        return "".join(traceback.format_exception(error))[-MAX_TRACEBACK_CHARS:]
    except Exception:  # the exception is the user's own class
        return ""


def most(errors: Errors) -> int:
    """Characters that a failure's text may have, whoever wrote it."""
    return MAX_TRACEBACK_CHARS if errors == "traceback" else MAX_MESSAGE_CHARS
