"""The two sides of ``resilience.py``: a server that plays faults by script, and the routers that are asked to cope."""
