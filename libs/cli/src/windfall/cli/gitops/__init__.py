"""``windfall fleet``: a whole fleet as manifests, from one values file.

``charts`` asks Helm's own engine, ``documents`` is what it gave as objects in an order, ``expansion`` is what k0rdent
would make of them and finds mistakes before it does, ``difference`` is how they differ from what a server has, and
``live`` asks one.
"""
