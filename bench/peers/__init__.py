"""The same jobs through other Python job queues: `python -m bench.peers`."""
