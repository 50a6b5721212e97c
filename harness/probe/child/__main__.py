"""Entry point: `python -P -m NAME PLAN.json`."""

from .launcher import main

if __name__ == "__main__":
    main()
