"""A real Kubernetes cluster as an agent's backend: a thin shell around pure inventory and manifests.

It speaks to the API server in plain HTTP and JSON, and keeps of each object only what it needs.
"""
