"""Both clouds on this machine: the same configurations, real TLS, and a link that can be cut, delayed and choked."""
