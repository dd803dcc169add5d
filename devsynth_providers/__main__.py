"""``python -m devsynth_providers`` is ``devsynth-providers``."""

from .cli import main

if __name__ == "__main__":
    main()
