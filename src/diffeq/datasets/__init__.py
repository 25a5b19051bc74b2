"""Small real series to fit models to, with their sources."""

from diffeq.datasets.hare_lynx import HareLynx, hare_lynx

__all__ = ["HareLynx", "hare_lynx"]
