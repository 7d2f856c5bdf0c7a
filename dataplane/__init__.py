"""Everything that touches the engine or the hardware."""
