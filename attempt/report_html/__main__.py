"""python -m attempt.report_html"""

import sys

from attempt.report_html.report_html import main

if __name__ == "__main__":
    sys.exit(main())
