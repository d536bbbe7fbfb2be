"""python -m attempt.exchange"""

import sys

from attempt.exchange.exchange import main

if __name__ == "__main__":
    sys.exit(main())
