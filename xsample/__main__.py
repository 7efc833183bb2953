"""`python -m xsample`: the command, where no `xsample` is on the path."""

from xsample.cli.main import main

if __name__ == "__main__":
    main()
