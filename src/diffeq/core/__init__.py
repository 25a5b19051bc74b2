"""Layer 0: arrays and pytrees, norms, status, loops. Nothing here knows what an equation is."""
