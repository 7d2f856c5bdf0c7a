"""The main job end to end, on one machine: what ``ws7000 demo`` runs."""
