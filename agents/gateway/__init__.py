"""The agent's part in traffic: what its cluster's gateways need to know, and the objects that standards ask for."""
