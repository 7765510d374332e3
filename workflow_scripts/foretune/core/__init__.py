"""What every room may use: errors, atomic files, config, code digests, locks and devices."""
