"""What a cluster has for models: nodes, ResourceSlices, claims and pod requests in; pools, room and conditions out.

Pure: no I/O, no clock, no chance. What labels say is not believed blindly: a value that cannot be true makes a
condition and no capacity, and what is not said is unknown, never zero.
"""
