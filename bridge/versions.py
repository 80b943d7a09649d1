"""Versions of formats: two teams upgrade apart, so whoever meets a newer one says both versions."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final

FORMAT: Final = 1
"""The version of every file and message that this release writes, and the only one that it reads."""


@cache
def release() -> str:
    """The version of this release; read once, since anyone may have a message refused by it."""
    try:
        return version("bunny-bridge")
    except PackageNotFoundError:  # a checkout that was never installed
        return "(not installed)"


def newer(where: str, found: object) -> str | None:
    """What to say of a version that this release does not read; None of one that it does, or that is none.

    Args:
        where: What has it.
        found: What stands there as its version.
    """
    if type(found) is not int or found == FORMAT or not 0 < found < 2**31:
        return None
    return (
        f"{where}: format version {found}, and Bunny Bridge {release()} reads version {FORMAT}; upgrade this side, "
        f"or have it written by a release that writes version {FORMAT}"
    )
