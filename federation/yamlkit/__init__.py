"""YAML with positions: errors give file:line:column and a hint."""
