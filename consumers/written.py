"""What stands of the records that a job streams, and whether an attempt goes on after them. No I/O."""

from __future__ import annotations

from bridge.errors import UsageError


class Written:
    """What an attempt is told of the attempts before it, and says of itself."""

    __slots__ = ("begun", "count", "resumed")

    def __init__(self) -> None:
        self.count = 0
        """Records that stand when the attempt starts."""
        self.resumed = False
        """Whether it goes on after them; otherwise the stream starts over with its first record."""
        self.begun = False
        """Whether a record of this attempt was taken."""

    def resume(self) -> int:
        """Go on after what stands.

        Raises:
            UsageError: The attempt has begun to write.
        """
        if self.begun:
            raise UsageError("job.resume() after the first record: call it before, or the stream has started over")
        self.resumed = True
        return self.count
