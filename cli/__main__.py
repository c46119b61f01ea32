"""`python -m cli`: how torchrun starts the command in each of its processes."""

from cli import main

main()
