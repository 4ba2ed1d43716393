"""How a stock single-user server is started in a fraction of its usual time.

Nothing of the server is rewritten: the same ``jupyterhub.singleuser.extension``
answers the same requests.  What changes is what is imported, and when.

``versions``    refuses what was not tested, so that stock is used instead
``curtain``     keeps modules out that a single-user server never uses
``hubclient``   asks the hub with tornado's client, in place of aiohttp
``app``         builds the server: defers slow extensions and the hub's version check
``settings``    the defaults of a person's server
"""
