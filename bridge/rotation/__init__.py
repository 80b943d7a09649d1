"""Keys that take the place of others: what stands beside those in use meanwhile, and when the old ones may go.

``beside`` is the file of it, ``steps`` the acts on one identity folder, ``leftover`` what is still stored of a key.
"""

from bridge.rotation.beside import ROTATION_FILE, Beside, published
from bridge.rotation.leftover import Leftover, ends_of, left
from bridge.rotation.steps import KEM, KINDS, NKEY, SIGN, Step, begin, finish, switch

__all__ = [
    "KEM",
    "KINDS",
    "NKEY",
    "ROTATION_FILE",
    "SIGN",
    "Beside",
    "Leftover",
    "Step",
    "begin",
    "ends_of",
    "finish",
    "left",
    "published",
    "switch",
]
