"""`sr3 overfit`."""

from sr3_jax.cli.configs import ConfigCommand, config_options
from sr3_jax.cli.options import Arguments, command


@command("overfit", ConfigCommand)
@config_options
def run(args: Arguments) -> int:
    """Train on one small batch for a minute; the loss must fall.

    The first thing to run on new data or a new network.

    Exit code 1 if after train.overfit_steps the loss is not below train.overfit_loss of what it
    was.
    """
    from sr3_jax.config import validate
    from sr3_jax.training import overfit

    validate(args.config)
    outcome = overfit.overfit(args.config)
    print(
        f"loss {outcome.before:.4f} → {outcome.after:.4f}; "
        f"goal, below {outcome.goal:.4f}: {'reached' if outcome.reached else 'NOT reached'}"
    )
    return 0 if outcome.reached else 1
