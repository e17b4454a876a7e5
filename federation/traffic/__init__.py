"""From shares to the configuration of the traffic layer: gateways (xDS), DNS and edge functions. Pure."""
