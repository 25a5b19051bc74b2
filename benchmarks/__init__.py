"""Benchmarks of `diffeq` against its peers: one adapter a peer, at equal achieved error."""
