"""Block devices of the embedded engine: file, malloc, null, split, raid0, concat, raid1, NVMe over TCP."""
