"""Where policies are: files, and those that come with this library, by their names."""

from __future__ import annotations

import difflib
from pathlib import Path

from ..errors import PolicyError, Problem

PACKAGED = Path(__file__).parent.parent / "policies"
"""Where the policies that come with this library are."""


def packaged_names() -> list[str]:
    """Names under which ``load_policy`` finds a policy that came with this library."""
    return sorted(path.stem for path in PACKAGED.glob("*.yaml"))


def find(source: str | Path, beside: Path = Path()) -> Path:
    """The file that *source* names: a path from the folder *beside*, or a packaged policy. Raises ``PolicyError``."""
    if not isinstance(source, str | Path):
        raise PolicyError("policy", [Problem(f"a policy is named by a path or a name, not {type(source).__name__}")])
    names = packaged_names()
    if not str(source).strip():
        raise PolicyError("policy", [Problem("no policy is named", suggestion=f"there are {', '.join(names)}")])
    path = beside / source
    if not _is_path(path) or path.is_file():
        return path  # what can not be a path is told by whoever reads it
    if str(source) in names:
        return PACKAGED / f"{source}.yaml"
    if path.exists():
        return path  # a folder: reading it says what is wrong
    near = difflib.get_close_matches(str(source), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"packaged policies: {', '.join(names)}"
    raise PolicyError(
        str(source), [Problem("there is no such file, and no packaged policy of this name", suggestion=hint)]
    )


def read_text(path: Path) -> str:
    """What is in the file at *path*. Raises ``PolicyError``."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PolicyError(str(path), [Problem(f"not UTF-8: byte {error.start}")]) from None
    except OSError as error:
        raise PolicyError(str(path), [Problem(f"can not be read: {error.strerror}")]) from None
    except ValueError:  # a NUL in its name
        raise PolicyError(ascii(str(path)), [Problem("can not be read: this is not the name of a file")]) from None


def _is_path(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):  # too long, or with a NUL
        return False
    return True
