"""Real components for tests and for `make demo-kubernetes`: Kubernetes, Mosquitto, Envoy, PowerDNS, Chromium."""
