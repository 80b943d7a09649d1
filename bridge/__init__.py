"""Bunny Bridge: jobs from one cloud to workers in another, sealed end to end."""

from importlib.util import find_spec
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
"""The folder that holds the three packages; `producers` and `consumers` tell by it that this ``bridge`` is theirs."""


def _refuse_namesakes() -> None:
    """Fail where another package of the same name would be imported in place of one of ours.

    The three names were given (``docs/adr/0001-import-names.md``) and are common words. Half of ours beside half
    of another's fails far from the cause; this says which file it is.
    """
    for name in ("producers", "consumers"):
        spec = find_spec(name)
        if spec is not None and spec.origin is not None and Path(spec.origin).resolve().parent != HOME / name:
            raise ImportError(
                f"another module named {name!r}, {spec.origin}, hides the one of Bunny Bridge in {HOME}; "
                "rename it, or keep its folder off sys.path"
            )


_refuse_namesakes()
