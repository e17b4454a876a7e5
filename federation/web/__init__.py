"""The latency map: a single page, built from source into `dist/`, which the API serves."""
