"""Asking people: `sr3 study`."""

import contextlib
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from absl import flags

from sr3_jax.cli.command import Arguments, Command, between
from sr3_jax.errors import UserError


def study(args: Arguments, words: list[str]) -> int | None:
    """Asks people: pairs of a real and a super-resolved image, which is which? The paper's fool rate, as a web page.

    sr3 study create --reference=DIR --candidates=DIR [--candidates=NAME=DIR …] [--lr=DIR] --task=1|2 --output=STUDY
    sr3 study serve STUDY [--subjects=50] [--host=…] [--port=…]
    sr3 study export STUDY --output=SITE [--subjects=50] [--url=…], then sr3 study collect STUDY FILE…
    sr3 study report STUDY [--output=DIR]

    create copies the images, matched by their stems, into a folder of their own. serve (extra [serve]) writes a link for each
    subject to STUDY/links.txt; every answer is on the disk before the next pair is shown. export writes the same as files for
    any web host, without a server: subjects save their answers as a file and send it back, for collect, which takes what it
    can (exit code 2 if not all). report writes fool rates with 95 % intervals, report.md, report.json, fool_rates.png and
    answers.csv, by default to STUDY/report.
    """
    parts: dict[str, Any] = {
        "create": _study_create,
        "serve": _study_serve,
        "export": _study_export,
        "collect": _study_collect,
        "report": _study_report,
    }
    action, rest = words[0], words[1:]
    if action not in parts:
        raise UserError(f"study {action}: there are {', '.join(parts)} (sr3 study --help)")
    takes = {"create": "flags only", "collect": "a STUDY and the files to take"}.get(action, "one STUDY")
    if len(rest) < 2 if action == "collect" else len(rest) != (action != "create"):
        raise UserError(f"study {action} takes {takes} (sr3 study --help)")
    return parts[action](args, *map(Path, rest))


def _study_create(args: Arguments) -> None:
    from sr3_jax.evaluation import pairs
    from sr3_jax.evaluation.human_study import study as studies

    for flag in ("reference", "candidates", "output", "task"):
        if not getattr(args, flag):
            raise UserError(f"study create needs --{flag}=… (sr3 study --help)")
    between(args, "task", 1, 2)
    for flag, least in (("trials", 1), ("training", 0), ("catch", 0), ("seed", 0)):
        between(args, flag, least, 10_000 if flag != "seed" else 2**31 - 1)
    if not 0.01 <= args.seconds <= 60:
        raise UserError(f"--seconds={args.seconds:g} must lie between 0.01 and 60")
    made = studies.create(
        Path(args.output),
        Path(args.reference),
        pairs.named_folders(args.candidates),
        Path(args.lr) if args.lr else None,
        task=args.task,
        seconds=args.seconds,
        per_subject=args.trials,
        training=args.training,
        catch=args.catch,
        seed=args.seed,
    )
    print(f"{len(made.stems)} images, {', '.join(made.methods)}; {made.per_subject} pairs a subject")
    print(f"sr3 study serve {args.output}")


def _study_serve(args: Arguments, folder: Path) -> None:
    from sr3_jax.evaluation.human_study import study as studies
    from sr3_jax.evaluation.human_study.answers import Answers

    try:
        from sr3_jax import web
        from sr3_jax.evaluation.human_study import app
    except ModuleNotFoundError as error:
        raise UserError(f"study serve needs the package {error.name}: pip install 'sr3_jax[serve]'") from error
    from sr3_jax.checkpoints import write_text

    if args.url and not re.fullmatch(r"https?://[^/\s]+/?", args.url):  # the page stands at /s/TOKEN
        raise UserError(f"--url={args.url} must be an address without a path, such as https://study.example")
    if args.host in ("0.0.0.0", "::") and not args.url:
        raise UserError(f"--host={args.host} needs --url=…, the address under which subjects reach this machine")
    between(args, "subjects", 1, 100_000)
    between(args, "port", 0, 65535)
    found = studies.load(folder)
    with web.listen(args.host, args.port) as listener, contextlib.closing(Answers(folder)) as answers:
        base = args.url.rstrip("/") + "/" if args.url else web.url(listener)
        shown = urlsplit(base)
        links = [f"{base}s/{token}" for token in answers.invite(args.subjects)]
        write_text(folder / "links.txt", "".join(f"{link}\n" for link in links))
        print(f"{links[0]}\n{len(links)} such links, one a subject, are in {folder / 'links.txt'}; Ctrl-C ends it", flush=True)
        if args.url:
            print(f"serving at {web.url(listener)}", flush=True)
        hosts = web.hosts(listener, *([shown.hostname] if shown.hostname else []))
        web.run(app.make_app(folder, found, answers, hosts, shown.netloc), listener)


def _study_export(args: Arguments, folder: Path) -> None:
    from sr3_jax.checkpoints import write_text
    from sr3_jax.evaluation.human_study import site
    from sr3_jax.evaluation.human_study import study as studies
    from sr3_jax.evaluation.human_study.answers import Answers

    if not args.output:
        raise UserError("study export needs --output=SITE (sr3 study --help)")
    if args.url and not re.fullmatch(r"https?://[^\s]+", args.url):
        raise UserError(f"--url={args.url} must be the address where the site will be, such as https://example.org/study")
    between(args, "subjects", 1, 10_000)
    found = studies.load(folder)
    with contextlib.closing(Answers(folder)) as answers:
        tokens, size = site.export(Path(args.output), folder, found, answers, args.subjects)
    links = folder / "links.txt"
    base = args.url.rstrip("/") + "/" if args.url else ""
    write_text(links, "".join(f"{base}{token}/index.html\n" for token in tokens))
    print(f"{args.output}: pages of {len(tokens)} subjects, {size / 1e6:.0f} MB")
    print(f"their {'links' if base else 'paths in it'} are in {links}")
    print(f"sr3 study collect {folder} FILE…    # what they send back")


def _study_collect(args: Arguments, folder: Path, *files: Path) -> int:
    from sr3_jax.evaluation.human_study import site
    from sr3_jax.evaluation.human_study import study as studies
    from sr3_jax.evaluation.human_study.answers import Answers

    found = studies.load(folder)
    new, failed = 0, []
    with contextlib.closing(Answers(folder)) as answers:
        for file in files:
            try:
                new += site.collect(found, answers, file)
            except UserError as error:
                failed.append(str(error))
    print(f"{new} new answers; next: sr3 study report {folder}")
    for sentence in failed:
        print(f"sr3: {sentence}", file=sys.stderr)
    return 2 if failed else 0


def _study_report(args: Arguments, folder: Path) -> None:
    from sr3_jax.evaluation.human_study import report
    from sr3_jax.evaluation.human_study import study as studies
    from sr3_jax.evaluation.human_study.answers import Answers

    if not 0 <= args.least_catch <= 1:
        raise UserError(f"--least_catch={args.least_catch:g} must lie between 0 and 1")
    found = studies.load(folder)
    with contextlib.closing(Answers(folder)) as answers:
        given = answers.all()
    if not given:
        raise UserError(f"{folder} has no answers yet")
    results = report.analyse(found, given, args.least_catch)
    output = Path(args.output) if args.output else folder / "report"
    report.save(output, found, given, results)
    print(report.table(results), end="")
    print(output / "report.md")


def _study_flags(fv: flags.FlagValues, argv: list[str]) -> None:
    flags.DEFINE_string("reference", None, "create: the folder of real images.", flag_values=fv)
    flags.DEFINE_multi_string("candidates", [], "create: a method's images, DIR or NAME=DIR; may be repeated.", flag_values=fv)
    flags.DEFINE_string("lr", None, "create: the folder of LR images, which task 1 shows.", flag_values=fv)
    flags.DEFINE_integer("task", 0, "create: 1, which is better, LR image shown; 2, which is from a camera.", flag_values=fv)
    flags.DEFINE_float("seconds", 3.0, "create: how long a pair is shown.", flag_values=fv)
    flags.DEFINE_integer(
        "trials", 50, "create: pairs a subject sees, at most what the other trials leave of the images.", flag_values=fv
    )
    flags.DEFINE_integer("training", 3, "create: pairs before those, with feedback.", flag_values=fv)
    flags.DEFINE_integer("catch", 5, "create: pairs among them with a plain answer.", flag_values=fv)
    flags.DEFINE_integer("seed", 0, "create: of the order of images and methods.", flag_values=fv)
    flags.DEFINE_string("output", None, "create, export: the new folder; report: where the report goes.", flag_values=fv)
    flags.DEFINE_integer("subjects", 50, "serve, export: how many there are to be.", flag_values=fv)
    flags.DEFINE_string("host", "127.0.0.1", "serve: address to listen on; 0.0.0.0: all of this machine's.", flag_values=fv)
    flags.DEFINE_integer("port", 8000, "serve: port; 0: any that is free.", flag_values=fv)
    flags.DEFINE_string("url", None, "serve, export: the address that subjects see; for the links.", flag_values=fv)
    flags.DEFINE_float(
        "least_catch", 0.8, "report: subjects with a smaller share of catch trials right are out.", flag_values=fv
    )


COMMANDS = {"study": Command(_study_flags, study, positional="create|serve|export|collect|report [STUDY [FILE…]]")}
