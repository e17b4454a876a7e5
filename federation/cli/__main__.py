"""`python -m federation.cli` is `isochrone`."""

from federation.cli.main import main

main()
