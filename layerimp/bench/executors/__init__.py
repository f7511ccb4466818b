"""Where the cells of a grid are computed: in this process, in others, on a cluster."""
