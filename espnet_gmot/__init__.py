"""Teach speech recognisers what language models know, by matching graphs with optimal transport."""

from espnet_gmot.version import __version__

__all__ = ["__version__"]
