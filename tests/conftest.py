"""What every test stands on."""

import trading  # noqa: F401 - before numba is imported: it says where kernels are cached
