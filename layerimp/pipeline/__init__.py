"""The work of the commands, from a recipe to a report."""
