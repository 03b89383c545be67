"""`python -m fitdoctor`."""

from fitdoctor.cli import main

if __name__ == "__main__":
    main()
