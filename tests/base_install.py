"""Run commands as if no extra were installed: python -m tests.base_install '[["generate", "MODEL"], ["env"]]'."""

import json
import sys
from importlib.machinery import PathFinder

from small_doge.utils.extras import EXTRAS


# Of an extra too, but PyTorch and the hub's library need it.
IN_BASE = {"fsspec"}
HIDDEN = {package for packages in EXTRAS.values() for package in packages} - IN_BASE


class BaseInstall:
    """Finds what is installed, but for the packages of the extras."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else PathFinder.find_spec(name, path, target)

    @staticmethod
    def find_distributions(*args):
        return (one for one in PathFinder.find_distributions(*args) if one.name.replace("-", "_") not in HIDDEN)


if __name__ == "__main__":
    sys.meta_path[:] = [BaseInstall if finder is PathFinder else finder for finder in sys.meta_path]
    from small_doge.cli.main import main

    for words in json.loads(sys.argv[1]):
        sys.argv = ["small-doge", *words]
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
