"""Files that are kept between runs: cached results, and the state from which an interrupted run continues."""
