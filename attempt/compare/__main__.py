"""python -m attempt.compare"""

import sys

from attempt.compare.compare import main

if __name__ == "__main__":
    sys.exit(main())
