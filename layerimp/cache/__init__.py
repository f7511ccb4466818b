"""What is kept on disk between runs: where it lies, and what an interrupted run goes on from."""
