"""What the array should be, and making it so."""
