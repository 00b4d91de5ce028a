"""`python -m moreseek`: the command line where its script is not on the PATH."""

from moreseek.cli import main

main()
