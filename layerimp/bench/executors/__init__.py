"""The executors, which compute the cells of a grid: in this process, or on a cluster."""
