"""Paper trading of US equity options by a policy that keeps learning while it trades."""

import sys

from trading.kernel_cache import use_cache_of_this_source

use_cache_of_this_source()

# For a checkout that is on the path and not installed: Gymnasium then knows no entry point of it.
if "gymnasium" in sys.modules:
    from trading.envs.registration import register_environments

    register_environments()
