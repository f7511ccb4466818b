"""`python -m layerimp`."""

from layerimp.cli import main

if __name__ == "__main__":
    main()
