"""Models learned against a critic."""
