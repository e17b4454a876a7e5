"""YAML as people write it, read with positions; what is wrong in it is said with file:line:column and a hint."""
