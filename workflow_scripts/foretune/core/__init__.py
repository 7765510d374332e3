"""Tools for all rooms: errors, atomic files, config, grid, code digests, locks and devices."""
