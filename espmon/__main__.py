"""``python -m espmon`` is the same as ``espmon``."""

from espmon.cli import main

if __name__ == "__main__":
    main()
