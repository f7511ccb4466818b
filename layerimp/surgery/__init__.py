"""Surgery: removing blocks exactly and reversibly, or not at all."""
