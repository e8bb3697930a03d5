"""`sr3 study`."""

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rich_click as click

from sr3_jax.cli.options import (
    HELP,
    Arguments,
    Number,
    Whole,
    argument,
    as_json,
    command,
    option,
    output,
    print_json,
    seed,
    server,
)
from sr3_jax.errors import UserError


class Study(click.RichGroup):
    """Its commands, in the order of use."""

    def list_commands(self, _: click.Context) -> list[str]:
        """The names of its commands, in the order in which they were added."""
        return list(self.commands)

    def parse_args(self, context: click.Context, words: list[str]) -> list[str]:
        """As click does it, but without a word it fails, and --help counts wherever it stands."""
        if not words and not context.resilient_parsing:
            raise click.UsageError(f"needs one of {', '.join(self.commands)}", context)
        wants_help = words and words[0] not in self.commands and {"-h", "--help"} & set(words)
        return super().parse_args(context, ["--help"] if wants_help else words)

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names; raises UserError if there is none."""
        if words[0] not in self.commands and not context.resilient_parsing:
            raise UserError(
                f"study {words[0]}: there are {', '.join(self.commands)} (sr3 study --help)"
            )
        return super().resolve_command(context, words)


@click.group("study", cls=Study, **HELP)
def run() -> None:
    """Ask people: pairs of a real and a super-resolved image, which is which?

    The paper's fool rate, as a web page.

    \b
      sr3 study create --reference=DIR --candidates=DIR --task=1|2 -o STUDY
      sr3 study serve STUDY                  or, without a server:
      sr3 study export STUDY -o SITE         then sr3 study collect STUDY FILE…
      sr3 study report STUDY
    """  # noqa: D301 (click's mark is the character, not the escape)


@contextlib.contextmanager
def _opened(place: str) -> Iterator[tuple[Path, Any, Any]]:
    """The folder of a study, the study, and its answers for as long as the block lasts."""
    from sr3_jax.study import study as studies
    from sr3_jax.study.answers import Answers

    folder = Path(place)
    found = studies.load(folder)
    with contextlib.closing(Answers(folder)) as answers:
        yield folder, found, answers


@command("create")
@option("--reference", metavar="DIR", required=True, help="The folder of real images.")
@option(
    "--candidates",
    metavar="[NAME=]DIR",
    multiple=True,
    required=True,
    help="A method's images; may be repeated.",
)
@option("--lr", metavar="DIR", help="The folder of LR images, which task 1 shows.")
@option(
    "--task",
    type=Whole(1, 2),
    required=True,
    help="1: which is better, LR image shown; 2: which is from a camera.",
)
@output("The folder of the study, new.", required=True)
@option(
    "--seconds",
    type=Number(0.01, 60),
    default=3.0,
    show_default=True,
    metavar="X",
    help="How long a pair is shown.",
)
@option(
    "--trials",
    type=Whole(1, 10_000),
    default=50,
    show_default=True,
    help="Pairs a subject sees, at most what the other trials leave of the images.",
)
@option(
    "--training",
    type=Whole(0, 10_000),
    default=3,
    show_default=True,
    help="Pairs before those, with feedback.",
)
@option(
    "--catch",
    type=Whole(0, 10_000),
    default=5,
    show_default=True,
    help="Pairs among them with a plain answer.",
)
@seed(help="Of the order of images and methods.")
def create(args: Arguments) -> None:
    """Copy the images, matched by their stems, into a folder of their own, and draw the pairs."""
    from sr3_jax.images import pairs
    from sr3_jax.study import study as studies

    made = studies.create(
        Path(args.output),
        Path(args.reference),
        pairs.named_folders(args.candidates),
        Path(args.lr) if args.lr else None,
        studies.Design(args.task, args.seconds, args.trials, args.training, args.catch, args.seed),
    )
    print(
        f"{len(made.stems)} images, {', '.join(made.methods)}; {made.per_subject} pairs a subject"
    )
    print(f"sr3 study serve {args.output}")


@command("serve")
@argument("folder", metavar="STUDY")
@option(
    "--subjects",
    type=Whole(1, 100_000),
    default=50,
    show_default=True,
    help="How many there are to be.",
)
@server
def serve(args: Arguments) -> None:
    """Show the study as a web page (extra [serve]): a link for each subject is in STUDY/links.txt.

    Every answer is on the disk before the next pair is shown. Ctrl-C ends it.
    """
    try:
        from sr3_jax.runtime import web
        from sr3_jax.study import app
    except ModuleNotFoundError as error:
        raise UserError(
            f"study serve needs the package {error.name}: pip install 'sr3_jax[serve]'"
        ) from error
    from sr3_jax.runtime.atomic import write_text

    names, origin = web.proxied(args.url)  # the page stands at /s/TOKEN
    if args.host in ("0.0.0.0", "::") and not args.url:
        raise UserError(
            f"--host={args.host} needs --url=…, the address under which subjects reach this machine"
        )
    with (
        web.listen(args.host, args.port) as listener,
        _opened(args.folder) as (folder, found, answers),
    ):
        base = args.url.rstrip("/") + "/" if args.url else web.url(listener)
        links = [f"{base}s/{token}" for token in answers.invite(args.subjects)]
        write_text(folder / "links.txt", "".join(f"{link}\n" for link in links))
        print(links[0])
        print(
            f"{len(links)} such links, one a subject, are in {folder / 'links.txt'}; "
            "Ctrl-C ends it",
            flush=True,
        )
        if args.url:
            print(f"serving at {web.url(listener)}", flush=True)
        hosts = web.hosts(listener, *names)
        web.run(app.make_app(folder, found, answers, hosts, origin), listener)


@command("export")
@argument("folder", metavar="STUDY")
@output("The folder for the site, new.", required=True)
@option(
    "--subjects",
    type=Whole(1, 10_000),
    default=50,
    show_default=True,
    help="How many there are to be.",
)
@option("--url", metavar="URL", help="The address where the site will be; for the links.")
def export(args: Arguments) -> None:
    """Write the study as files for any web host, without a server.

    Subjects save their answers as a file and send it back, for sr3 study collect.
    """
    from sr3_jax.runtime.atomic import write_text
    from sr3_jax.study import site

    if args.url and not re.fullmatch(r"https?://[^\s]+", args.url):
        raise UserError(
            f"--url={args.url} must be the address where the site will be, "
            "such as https://example.org/study"
        )
    with _opened(args.folder) as (folder, found, answers):
        tokens, size = site.export(Path(args.output), folder, found, answers, args.subjects)
    links = folder / "links.txt"
    base = args.url.rstrip("/") + "/" if args.url else ""
    write_text(links, "".join(f"{base}{token}/index.html\n" for token in tokens))
    print(f"{args.output}: pages of {len(tokens)} subjects, {size / 1e6:.0f} MB")
    print(f"their {'links' if base else 'paths in it'} are in {links}")
    print(f"sr3 study collect {folder} FILE…    # what they send back")


@command("collect")
@argument("folder", metavar="STUDY")
@argument("files", nargs=-1, required=True, metavar="FILE…")
def collect(args: Arguments) -> int:
    """Take the files of answers that subjects sent; exit code 2 if one could not be taken."""
    from sr3_jax.study import site

    new = 0
    failed = []
    with _opened(args.folder) as (folder, found, answers):
        for file in args.files:
            try:
                new += site.collect(found, answers, Path(file))
            except UserError as error:
                failed.append(str(error))
    print(f"{new} new answers; next: sr3 study report {folder}")
    for sentence in failed:
        print(f"sr3: {sentence}", file=sys.stderr)
    return 2 if failed else 0


@command("report")
@argument("folder", metavar="STUDY")
@output(
    "The folder for report.md, report.json, fool_rates.png, answers.csv. By default STUDY/report."
)
@option(
    "--least-catch",
    type=Number(0, 1),
    default=0.8,
    show_default=True,
    help="Subjects with a smaller share of catch trials right are left out.",
)
@as_json()
def report(args: Arguments) -> None:
    """Compute fool rates with 95 % intervals."""
    from sr3_jax.study import report as reports

    with _opened(args.folder) as (folder, found, answers):
        given = answers.all()
    if not given:
        raise UserError(f"{folder} has no answers yet")
    results = reports.analyse(found, given, args.least_catch)
    target = Path(args.output) if args.output else folder / "report"
    reports.save(target, found, given, results)
    if args.json:
        print_json(results)
        return
    print(reports.table(results), end="")
    print(target / "report.md")


for part in (create, serve, export, collect, report):
    run.add_command(part)
