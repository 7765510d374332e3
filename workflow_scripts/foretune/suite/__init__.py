"""An annex that rebuilds the bundled tasks and encoders."""
