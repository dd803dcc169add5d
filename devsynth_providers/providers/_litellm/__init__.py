"""The door to LiteLLM: the only folder that imports it. None of its types or errors leave.

Facts about it that the code here answers to were measured on 1.106.2; ``tests/test_litellm.py`` holds them.
"""
