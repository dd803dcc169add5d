"""The same errors, under the name that DevSynth uses."""

from .errors import *  # noqa: F403
