"""`sr3 params`."""

from sr3_jax.cli.configs import ConfigCommand, config_options
from sr3_jax.cli.options import Arguments, command


@command("params", ConfigCommand)
@config_options
def run(args: Arguments) -> None:
    """List the network's parameters and their number, without allocating them."""
    import jax
    from clu import parameter_overview

    from sr3_jax.config import validate
    from sr3_jax.method import Method

    validate(args.config)
    abstract = jax.eval_shape(Method(args.config).init, jax.random.key(0))
    print(parameter_overview.get_parameter_overview(abstract, include_stats=False))
