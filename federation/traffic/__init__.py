"""From shares to what the traffic layer is told: gateways (xDS), DNS, edge functions. Pure."""
