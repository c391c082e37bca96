"""Teach speech recognisers what language models know, by matching graphs with optimal transport."""

import sys

from espnet_gmot.version import __version__

if sys.version_info < (3, 10):  # noqa: UP036 - for who runs a clone: pip refuses by itself
    raise ImportError("espnet_gmot needs Python 3.10 or newer, this is " + sys.version.split()[0])

__all__ = ["__version__"]
