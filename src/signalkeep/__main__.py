"""`python -m signalkeep` is the command `signalkeep`."""

from signalkeep.cli.main import main

if __name__ == "__main__":
    main()
