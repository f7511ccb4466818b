"""Writing a model as a stock checkpoint that has proved to load back."""
