"""What a service that submits jobs imports."""

import bridge

# The name is a common word: another package of that name fails here, with its path, and not somewhere inside it.
if getattr(bridge, "HOME", None) is None:
    raise ImportError(
        f"another module named 'bridge', {bridge.__file__}, hides the one of Bunny Bridge; "
        "rename it, or keep its folder off sys.path"
    )
