"""By which a producer sees that a stream lost what it had stored: the sequences in its PubAcks. No I/O."""

from __future__ import annotations

from typing import NamedTuple


class Mark(NamedTuple):
    """How far a stream was known to be at a moment."""

    sequence: int
    era: int
    """How often it went back before that."""


class Sequences:
    """The highest sequence that each stream has told.

    A message that was sent after another's PubAck came has a higher sequence, whatever order PubAcks arrive in and
    whichever server of a cluster leads. One that has not was stored by a stream that was put back to an earlier state,
    or made anew.
    """

    def __init__(self) -> None:
        self._known: dict[str, Mark] = {}

    def before(self, stream: str) -> Mark:
        """What is known of a stream: to be asked before a message is sent."""
        return self._known.get(stream, Mark(0, 0))

    def went_back(self, stream: str, sequence: int, before: Mark) -> bool:
        """Whether the stream that stored a message has gone back meanwhile; True once each time it does.

        Args:
            stream: Its name.
            sequence: That of the PubAck.
            before: What `before` said when the message was about to be sent.
        """
        known = self.before(stream)
        if before.era != known.era:
            return False  # it was sent before that was noticed, and so says nothing of what came after
        if sequence > before.sequence:
            self._known[stream] = Mark(max(sequence, known.sequence), known.era)
            return False
        self._known[stream] = Mark(sequence, known.era + 1)
        return True
