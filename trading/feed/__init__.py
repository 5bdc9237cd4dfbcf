"""One connection to the vendor, shared by many readers that connect to it as to the vendor."""
