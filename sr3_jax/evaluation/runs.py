"""A protocol, run: `sr3 evaluate`.

For example:

    checkpoint = load_checkpoint("faces-16-64")
    results, picture = run(PROTOCOLS["orl"], [checkpoint], folder, Options(samples=8))
"""

import contextlib
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sr3_jax.checkpoints.checkpoint import Checkpoint
from sr3_jax.data.folder import Folder
from sr3_jax.data.source import Dropped, check_budget, converted
from sr3_jax.errors import UserError
from sr3_jax.evaluation import contenders, labelled_sets, meters, report, rows, simple
from sr3_jax.evaluation.contenders import Contender, Drawing
from sr3_jax.evaluation.edit_damage import CORRUPTIONS
from sr3_jax.evaluation.image_sets import Alone, Pairs, Split, Themselves, split
from sr3_jax.evaluation.measure import HR, Collected, Meter, Unfinished, forget, measure
from sr3_jax.evaluation.pictures import best_and_worst
from sr3_jax.evaluation.protocols import PROTOCOLS, Options, Protocol
from sr3_jax.images import arrays, pairs
from sr3_jax.metrics.distributions import Reference
from sr3_jax.metrics.networks.inception import FeatureNetwork
from sr3_jax.runtime import parallel
from sr3_jax.runtime.parallel import Shard
from sr3_jax.runtime.paths import AnyPath


def run(
    protocol: Protocol,
    checkpoints: Sequence[Checkpoint],
    folder: AnyPath,
    options: Options = Options(),  # noqa: B008 (frozen)
    on_start: Callable[[int], object] = lambda total: None,
    on_images: Callable[[int], object] = lambda count: None,
) -> tuple[report.Results, np.ndarray | None] | None:
    """Measures bicubic, nearest, the checkpoints and the methods' images.

    Returns what results.json holds, and the picture.

    Goes on where a run that was stopped left off in `folder`. None on all processes but the main
    one. Raises UserError, and Unfinished if other shards have not measured their part yet.
    """
    check_needs(protocol, options)
    _check_names(options)
    if protocol.name == "table4":
        return _generated(protocol, folder, options, on_start, on_images)
    if not protocol.edit:  # networks of edits take images of any size
        rows.check_alike(checkpoints)
    if options.lr:
        data: Split | Alone = Alone(options.lr, protocol.hr_size // protocol.lr_size, options.limit)
        if options.reference is None:
            raise UserError(
                "images without references need --reference=… for FID (sr3 evaluate --help)"
            )
    else:
        if not checkpoints and not options.images:
            raise UserError(f"--protocol={protocol.name} needs --checkpoint=… or --images=…")
        data = split(protocol, checkpoints[0].config if checkpoints else None, options)
    field_ = rows.every(protocol, checkpoints, data, options)
    return _measured(protocol, data, field_, folder, options, checkpoints, on_start, on_images)


def check_needs(protocol: Protocol, given: Any) -> None:
    """Raises UserError, naming the first, unless `given` has all that the protocol needs."""
    for need in protocol.needs:
        if not getattr(given, need):
            raise UserError(f"--protocol={protocol.name} needs --{need}=… (sr3 evaluate --help)")
    if given.reference and not given.inception and protocol.name != "images":
        raise UserError("--reference=… is what FID compares with, and needs --inception=PATH")
    if given.labels and "top_1" not in protocol.columns:
        raise UserError(f"--labels is for --protocol=table3, not for --protocol={protocol.name}")
    if given.data and given.lr:
        raise UserError(
            "--data and --lr cannot be given together: the images come from one of them"
        )
    if given.data and protocol.data and "data" not in protocol.needs:
        raise UserError(
            f"--protocol={protocol.name} has images of its own; --data is for the paper's tables"
        )
    if given.match_input and any(part.edit for part in (protocol, *protocol.parts)):
        raise UserError(f"--match-input is for enlarged images, not for --protocol={protocol.name}")
    if given.lr and protocol.name not in ("table5", "images"):
        raise UserError(
            "--lr is for --protocol=table5 or for --images and --reference, "
            f"not for --protocol={protocol.name}"
        )


def _check_names(options: Options) -> None:
    for name in options.images:
        if name in (HR, "reference") or "/" in name:
            raise UserError(
                f"a method cannot be called {name!r} here: give NAME=DIR with another name"
            )


def run_images(
    reference: Path,
    folder: AnyPath,
    options: Options,
    on_start: Callable[[int], object] = lambda total: None,
    on_images: Callable[[int], object] = lambda count: None,
) -> tuple[report.Results, np.ndarray | None] | None:
    """As `run`, of any methods' images (options.images) against a folder of references."""
    _check_names(options)
    data = Pairs(reference, options.lr, options.images)
    field_ = [contenders.Folder(name, files) for name, files in data.methods.items()]
    return _measured(PROTOCOLS["images"], data, field_, folder, options, [], on_start, on_images)


def run_labelled(
    protocol: Protocol,
    folder: AnyPath,
    options: Options,
    on_start: Callable[[int], object] = lambda total: None,
    on_images: Callable[[int], object] = lambda count: None,
) -> tuple[report.Results, None]:
    """Measures sets of generated images with classes; see `labelled_sets.run`."""
    check_needs(protocol, options)
    _check_names(options)
    if options.shard.count > 1:
        raise UserError(f"--protocol={protocol.name} is measured as a whole, not by --shard")
    network: Any = options.classifier  # one that gives features, too
    found = labelled_sets.run(protocol, folder, options, network, on_start, on_images)
    return _header(protocol, {}, options) | found, None


def statistics(
    images: Path,
    folder: AnyPath,
    inception: FeatureNetwork,
    on_images: Callable[[int], object],
    shard: Shard = Shard(),  # noqa: B008 (immutable)
) -> Reference:
    """The statistics of a folder of images, for FID.

    A shard begins with its own part, then does what others have not done by then.
    """
    features = meters.classes(inception)._replace(end=None)
    data, field_ = Alone(images), [Themselves(images.name)]
    if shard.count > 1:
        with contextlib.suppress(Unfinished):
            measure(data, field_, [features], folder, on_images, shard)
    measure(data, field_, [features], folder, on_images)
    collected = Collected(folder, len(data.chunks()))  # on all processes, which compare with it
    return Reference.of(images.name, meters.statistics(collected, images.name))


def finish(output: AnyPath, names: Sequence[str] = ()) -> None:
    """Removes what a run kept in order to go on, after its results are written.

    `names` are the methods of table 4.
    """
    for place in (output, output / "reference", *(output / name for name in names)):
        if forget(place) and place != output and not any(place.iterdir()):
            place.rmdir()


def export(
    protocol: Protocol,
    folder: Path,
    options: Options,
    checkpoints: Sequence[Checkpoint] = (),
    inside: str = "",
) -> int:
    """Writes the protocol's images, for methods of any kind; returns their number.

    They go to folder/lr and folder/reference, to the folder `inside` of each.
    """
    data = split(protocol, checkpoints[0].config if checkpoints else None, options)
    rows.by_stem(data)
    count, dropped = 0, [f"{one.id} {one.reason}" for one in data.source.dropped]
    for chunk in data.chunks():
        images = data.load(chunk)
        dropped += images.dropped
        if images.hr is None or images.lr is None:
            continue
        for id, hr, lr in zip(images.ids, images.hr, images.lr, strict=True):
            arrays.write(folder / "reference" / inside / f"{rows.stem(id)}.png", hr)
            arrays.write(folder / "lr" / inside / f"{rows.stem(id)}.png", lr)
            count += 1
    if not count:
        raise UserError("there is no image to export" + (f": {dropped[0]}" if dropped else ""))
    return count


def _meters(protocol: Protocol, options: Options, data: Any) -> list[Meter]:
    wanted = set(protocol.columns)
    found = []
    if wanted & {"psnr", "ssim"}:
        # What an edit is given is no smaller version of its result
        found.append(meters.pixels(consistency=not protocol.edit))
    if "psnr_hole" in wanted:
        found.append(meters.holes())
    if "ciede2000" in wanted:
        found += [meters.colours(), meters.colourfulness()]
    if options.perceptual and "lpips_vgg" in wanted:
        found.append(meters.perceptual())
    if options.dists and "dists" in wanted:
        found.append(meters.structure_and_texture())
    if options.niqe and "niqe" in wanted:
        found.append(meters.naturalness())
    if options.perceptual and "crops_kd" in wanted:
        found.append(meters.many_crops())
    if options.inception and protocol.name != "table3":
        found.append(meters.classes(options.inception, options.reference, _name(data)))
    if options.embed and "rank_1" in wanted:
        found.append(
            meters.faces(options.embed, getattr(options.embed, "name", "given by the caller"))
        )
    if options.classifier and "top_1" in wanted:
        found.append(
            meters.accuracy(
                options.classifier,
                getattr(options.classifier, "name", "given by the caller"),
                _labels(data, options),
            )
        )
    if options.samples > 1 and "coverage" in wanted:
        found.append(meters.differences(options.perceptual))
    return found


def _name(data: Any) -> str:
    names = [data.about.get(key) for key in ("data", "reference", "source")]
    return f"the HR images of {next(filter(None, names), 'the same set')}"


def _labels(data: Split, options: Options) -> Callable[[Sequence[str]], np.ndarray]:
    """The class of each image: by the file of labels, or by the sorted folders.

    Most image sets are kept in such folders, one for each class.
    """
    if options.labels:

        def by_file(ids: Sequence[str]) -> np.ndarray:
            missing = [id for id in ids if Path(id).name not in options.labels]
            if missing:
                raise UserError(f"--labels has no class of {pairs.listed(missing)}")
            return np.array([options.labels[Path(id).name] for id in ids])

        return by_file
    names = data.source.names if isinstance(data.source, Folder) else []
    folders = sorted({name.rpartition("/")[0] for name in names})
    if len(folders) != 1000:
        raise UserError(
            "the classes are the sorted folders of the images, of which there must be 1000 "
            f"and not {len(folders)}; or give "
            "--labels=FILE with a line 'FILE-NAME CLASS' for each image"
        )
    numbers = {folder: i for i, folder in enumerate(folders)}
    return lambda ids: np.array([numbers[id.rpartition("/")[0]] for id in ids])


def _generated(
    protocol: Protocol,
    folder: AnyPath,
    options: Options,
    on_start: Callable[[int], object],
    on_images: Callable[[int], object],
) -> tuple[report.Results, np.ndarray | None] | None:
    """Table 4: sets of images, each against one reference."""
    assert options.inception is not None
    assert options.reference is not None
    sets = {name: Alone(place, limit=options.limit) for name, place in options.images.items()}
    on_start(sum(_count(one, options.shard) for one in sets.values()))
    meter = meters.classes(options.inception, options.reference)
    methods: dict[str, dict[str, float]] = {}
    missing: list[Shard] = []
    for name, data in sets.items():
        field_ = [Themselves(name)]
        try:
            collected = measure(data, field_, [meter], folder / name, on_images, options.shard)
        except Unfinished as waiting:
            missing += waiting.missing
            continue
        if collected:
            methods |= collected.methods()
    if missing:
        raise Unfinished(missing)
    if not parallel.is_main():
        return None
    about = {name: data.about for name, data in sets.items()}
    results = _header(protocol, {"sets": about}, options) | {
        "n": sum(one["n"] for one in about.values()),
        "warnings": report.warnings(
            methods, min(sum(map(len, one.chunks())) for one in sets.values())
        ),
        "networks": dict(meter.about),
        "methods": methods,
    }
    return results, None


def _count(data: Any, shard: Shard) -> int:
    """How many images are measured here, of all chunks that are this shard's and process's."""
    chunks = data.chunks()
    return sum(len(chunks[number]) for number in shard.share(len(chunks)))


def _measured(
    protocol: Protocol,
    data: Any,
    field_: Sequence[Contender],
    folder: AnyPath,
    options: Options,
    checkpoints: Sequence[Checkpoint],
    on_start: Callable[[int], object],
    on_images: Callable[[int], object],
) -> tuple[report.Results, np.ndarray | None] | None:
    on_start(_count(data, options.shard))
    found = _meters(protocol, options, data)
    measured = [
        one
        if isinstance(one, contenders.Folder) or not rows.timed(protocol)
        else contenders.Timed(one)
        for one in field_
    ]
    collected = measure(data, measured, found, folder, on_images, options.shard)
    if collected is None:
        return None
    groups = [data.group(id) for id in collected.ids] if isinstance(data, Split) else None
    bad: list[Dropped] = []
    if isinstance(data, Split):
        bad = [*data.source.dropped, *(Dropped("", reason) for reason in collected.dropped)]
        check_budget(bad, data.source, data.config.data.max_bad_fraction, "evaluation data")
    networks = {name: about for meter in found for name, about in meter.about.items()}
    networks |= collected.about
    if "identity" in networks:
        networks["identity"] = networks["identity"] | {
            "gallery": f"the other {len(collected.ids) - 1} HR images"
        }
    methods = collected.methods()
    for one in field_:
        if "step" in one.about:
            methods[one.rows[0]]["step"] = one.about["step"]
    results = _header(protocol, data.about, options) | {
        "n": len(collected.ids),
        "warnings": report.warnings(methods, len(collected.ids)),
        "left_out": [f"{one.id} {one.reason}".strip() for one in bad],
        "not_measured": {
            metric: reason
            for metric, reason in options.not_installed.items()
            if metric in protocol.columns
        }
        | collected.not_measured
        | (simple.missing(protocol.edit) if protocol.edit else {}),
        "converted": converted(collected.notes),
        # of edits each network has its own, among "contenders"
        "step": checkpoints[0].step if checkpoints and not protocol.edit else None,
        "contenders": {one.rows[0]: one.about for one in field_},
        "networks": networks,
        "methods": methods,
        "intervals": collected.intervals(groups),
        "intervals_over": data.drawn if isinstance(data, Split) else "images",
        "differences": _differences(collected, field_, groups),
        "recipes": {id: CORRUPTIONS[protocol.damage].recipe(id) for id in collected.ids}
        if protocol.damage
        else {},
        "per_image": {
            row: {
                id: {name: float(values[i]) for name, values in metrics.items()}
                for i, id in enumerate(collected.ids)
            }
            for row, metrics in collected.per_image.items()
            if metrics
        },
    }
    given = "given" if protocol.edit else "LR"
    return results, best_and_worst(data, field_, collected, given)


def _differences(
    collected: Collected, field_: Sequence[Contender], groups: Sequence[str] | None
) -> dict[str, Any]:
    """What the last network that is not told anything has more than the other rows."""
    networks = [one for one in field_ if isinstance(one, Drawing) and "told" not in one.about]
    if not networks or not (minus := collected.differences(networks[-1].name, groups)):
        return {}
    return {"of": networks[-1].name, "minus": minus}


def _header(protocol: Protocol, about: Mapping[str, Any], options: Options) -> report.Results:
    return {
        "protocol": protocol.name,
        "title": protocol.title,
        "columns": list(protocol.columns),
        "data": dict(about),
        "seed": options.seed,
        "versions": report.versions(),
        "revision": revision(),
        "command": shlex.join(["sr3", *sys.argv[1:]]),
        "paper": {name: dict(row) for name, row in protocol.paper.items()},
    }


def revision() -> str | None:
    """The commit of the checkout that this package is in; None outside of one.

    It ends in a + when files have changed.
    """
    # Without tags, it describes a commit by its hash
    describe = ["describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+"]
    try:
        return subprocess.run(
            ["git", "-C", Path(__file__).parent, *describe],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
