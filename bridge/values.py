"""Values that are made for each message: frozen for the type checker, which is who holds us to it. No I/O.

At run time a frozen dataclass sets each field by a call of its own, and a dozen of them are made on a job's way: of 25
fields one takes 18.5 us on a busy machine, and this 0.4. They compare and hash as frozen ones do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["value"]

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:
    from dataclasses import dataclass

    def value(*, frozen: bool, slots: bool) -> object:
        """As ``dataclass(frozen=True, slots=True)``, which is the only way to call it."""
        assert frozen  # noqa: S101  # what the type checker goes by
        return dataclass(slots=slots, unsafe_hash=True)
