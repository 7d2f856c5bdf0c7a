"""Where the HA manager touches the world: sockets, processes, the data plane.  Nothing here decides."""
