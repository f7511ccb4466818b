"""The executors, which compute the cells of a grid: in this process, in other processes, or on a cluster."""
