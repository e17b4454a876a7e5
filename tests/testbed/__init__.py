"""Real components for tests and for `make demo-kubernetes`: Kubernetes control planes, Mosquitto, Chromium."""
