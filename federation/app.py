"""Composition root: builds and wires the controller."""
