"""Every fault that a server can show on the wire, on every path by which it can be met.

``rows`` holds a fault and what must come of it, as data; ``paths`` are the ways to ask, ``lanes`` the ways to send;
``play`` plays one in a cell of its own, and ``rules`` say what must hold of what came of it.
"""
