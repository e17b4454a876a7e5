"""From typed intent to Kubernetes objects. Pure: a workload, a way to its devices and the site's settings in.

Everything is made here and nothing comes from the wire but names, counts, an image and arguments. Pods meet the Pod
Security Standard `restricted`.
"""
