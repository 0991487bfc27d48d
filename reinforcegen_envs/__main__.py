"""``python -m reinforcegen_envs``: the console script without its being on the path."""

from reinforcegen_envs.commands import main

if __name__ == "__main__":
    main()
