"""Writing a model as a stock checkpoint, and verifying that it loads back."""
