"""What models amount to, and what a smaller one is asked to amount to: plain numbers, without a model."""
