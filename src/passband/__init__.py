"""Show which image frequencies a vision model runs on, and train models that run on the right ones."""
