"""`python -m trading` is the `trading` command."""

from trading.cli.main import main

if __name__ == "__main__":
    main()
