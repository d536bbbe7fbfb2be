"""python -m attempt.plots"""

import sys

from attempt.plots.plots import main

if __name__ == "__main__":
    sys.exit(main())
