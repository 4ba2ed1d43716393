"""``astrocloud up``: the whole platform on one machine, in the foreground.

Starts the proxy, the hub and the services as children, starts them again when one dies, and ends with no process left:
people's servers outlive a hub that dies, but never the platform.
"""
