"""`python -m mcss` is the command line `mcss`."""

from mcss.cli import main

if __name__ == "__main__":
    main()
