"""Paper trading of US equity options by a policy that keeps learning while it trades."""

from trading.kernel_cache import use_cache_of_this_source

use_cache_of_this_source()
