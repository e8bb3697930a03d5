"""`sr3 show`."""

import json

from sr3_jax.cli.options import Arguments, CheckpointName, argument, as_json, command, print_json


@command("show")
@argument("checkpoint", metavar="CHECKPOINT", type=CheckpointName())
@as_json("Print step, config and data card as JSON.")
def run(args: Arguments) -> None:
    """Show a checkpoint's step, config and data card.

    CHECKPOINT is a workdir, a step of it, an exported file, or the name of shipped weights. The
    data card says what it was trained on, whose that is, and under which licence.
    """
    from sr3_jax import config
    from sr3_jax.checkpoints.names import load_checkpoint
    from sr3_jax.data import cards

    checkpoint = load_checkpoint(args.checkpoint)
    text = config.to_json(checkpoint.config)
    card = checkpoint.data_card or cards.data_card(checkpoint.config)
    if args.json:
        print_json(
            {
                "name": checkpoint.name,
                "step": checkpoint.step,
                "config": json.loads(text),
                "data_card": card,
            }
        )
    else:
        print(f"{checkpoint.name}, step {checkpoint.step}\n\n{text}\n")
        print(card or "It has no data card.")
