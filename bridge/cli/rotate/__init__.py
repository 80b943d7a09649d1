"""``bunny rotate``: other keys in the place of those in use, while jobs flow."""
