"""The east wing: the built-in services, one file each, written against the contract alone."""
