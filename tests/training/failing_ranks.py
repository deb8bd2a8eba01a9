"""`python failing_ranks.py killed|wrong`: the second rank ends in that way, while the first waits for it."""

import os
import signal
import sys

from pairtune import joining, parallel
from pairtune.errors import InputError

try:
    with joining.joined():
        parallel.totals(1.0)
        if parallel.rank() == 1 and sys.argv[1] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if parallel.rank() == 1:
            raise InputError("what is wrong here")
        parallel.totals(1.0)
except joining.OtherRankError:
    sys.exit(2)
except InputError as error:
    print(error)
    sys.exit(2)
