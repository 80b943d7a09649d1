"""Bunny Bridge: jobs from one cloud to workers in another, sealed end to end."""
