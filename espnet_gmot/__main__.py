"""``python3 -m espnet_gmot``: see :mod:`espnet_gmot.launcher`."""

import sys

from espnet_gmot import launcher

# multiprocessing imports the main module in every worker that it spawns, so that it is as its parent was; but it
# skips a package's __main__. Named so, the main module is the launcher, and the worker has the plugin registered.
__spec__ = launcher.__spec__

if __name__ == "__main__":
    sys.exit(launcher.main())
