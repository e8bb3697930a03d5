"""`sr3 check-data`."""

from pathlib import Path

from sr3_jax.cli.configs import ConfigCommand, config_options
from sr3_jax.cli.options import Arguments, command, output, overwrite


@command("check-data", ConfigCommand)
@config_options
@output("The contact sheet.", default="check-data.png")
@overwrite()
def run(args: Arguments) -> None:
    """Read every image of the data set, tell what is in it, and write a contact sheet.

    It also tells which images would be dropped, and why.

    The sheet shows LR, conditioning and HR as the network will see them, augmentation included. The
    images are those of data.source and data.folder.
    """
    from sr3_jax.config import validate
    from sr3_jax.data.check import check

    validate(args.config)
    for line in check(args.config, Path(args.output), args.overwrite):
        print(line)
    print(args.output)
