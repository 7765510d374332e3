"""Names of the outcomes that the analysis explains."""

GAIN = "gain_over_zero_shot_error"
