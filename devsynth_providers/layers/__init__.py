"""Layers: providers that wrap a provider, each adding one behaviour. They know nothing of each other."""
