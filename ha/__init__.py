"""Active-active high availability; the place is kept by the design, the manager is not written yet."""
