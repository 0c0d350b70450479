"""`python -m pipeline.cli` is `hookline`."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
