"""Providers: thin faces over LiteLLM. What differs between them is data."""
