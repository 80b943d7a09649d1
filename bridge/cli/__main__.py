"""``python -m bridge.cli`` is ``bunny``."""

from bridge.cli import main

main()
