"""``bunny demo``: the main job on real files over both clouds on this machine, and the evidence for what is claimed."""
