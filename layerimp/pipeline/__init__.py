"""What the commands do, from a recipe to a report."""
