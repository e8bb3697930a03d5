"""The metrics in the form that `measure` takes: one function for each family of them."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sr3_jax.errors import UserError
from sr3_jax.evaluation.measure import HR, Collected, Meter, Pictures
from sr3_jax.metrics import colour, crops, distortion, distributions, diversity, identity, niqe
from sr3_jax.metrics.distributions import Reference, Statistics
from sr3_jax.metrics.dists import dists
from sr3_jax.metrics.lpips import SMALLEST, lpips
from sr3_jax.metrics.networks import resnet
from sr3_jax.metrics.networks.inception import FeatureNetwork

# uint8 images (n, h, w, 3) to logits (n, classes); `name` says which network that is
Classifier = Callable[[np.ndarray], Any]

SQUARES = "squared spread and error"  # the name of these vectors


def pixels(consistency: bool = True) -> Meter:
    """PSNR and SSIM where there is an HR image, and consistency where there is an LR image.

    Of colour images PSNR and SSIM are computed in RGB and in Y (luma). Without `consistency` that
    is left out.
    """

    def each(pictures: Pictures) -> dict[str, np.ndarray]:
        images, hr, lr = pictures.images, pictures.hr, pictures.lr
        found = {}
        if hr is not None:
            found = {"psnr": distortion.psnr(images, hr), "ssim": distortion.ssim(images, hr)}
            if images.shape[-1] == 3:
                ours, theirs = distortion.luma(images), distortion.luma(hr)
                found |= {
                    "psnr_y": distortion.psnr(ours, theirs),
                    "ssim_y": distortion.ssim(ours, theirs),
                }
        if lr is None or not consistency:
            return found
        return found | distortion.consistency(images, lr)

    return Meter("pixels", each)


def holes() -> Meter:
    """PSNR of the holes, where the alpha channel of the input is 0."""

    def each(pictures: Pictures) -> dict[str, np.ndarray]:
        if pictures.hr is None or pictures.lr is None:
            return {}
        unknown = pictures.lr[..., 3] == 0
        return {"psnr_hole": distortion.psnr_within(pictures.images, pictures.hr, unknown)}

    return Meter("holes", each)


def colours() -> Meter:
    """How far colours are from those of the references."""

    def each(pictures: Pictures) -> dict[str, np.ndarray]:
        if pictures.hr is None:
            return {}
        return {"ciede2000": colour.ciede2000(pictures.images, pictures.hr)}

    return Meter("colours", each)


def colourfulness() -> Meter:
    """How colourful images are, also the references."""

    def each(pictures: Pictures) -> dict[str, np.ndarray]:
        return {"colourfulness": colour.colourfulness(pictures.images)}

    return Meter("colourfulness", each, None, True)


def perceptual() -> Meter:
    """LPIPS by VGG16 and by AlexNet, each of images that are large enough for it."""

    def each(pictures: Pictures) -> dict[str, np.ndarray]:
        images, hr = pictures.images, pictures.hr
        if hr is None:
            return {}
        found = {
            name: lpips(images, hr, name)
            if min(images.shape[1:3]) >= smallest
            else _nothing(images)
            for name, smallest in SMALLEST.items()
        }
        return {f"lpips_{name}": np.asarray(values, np.float64) for name, values in found.items()}

    return Meter("lpips", each, about={"lpips": "LPIPS 0.1, VGG16 and AlexNet"})


def _nothing(images: np.ndarray) -> np.ndarray:
    """The values of a metric that images are too small for."""
    return np.full(len(images), np.nan)


def structure_and_texture() -> Meter:
    """DISTS."""

    def each(pictures: Pictures) -> dict[str, np.ndarray]:
        if pictures.hr is None:
            return {}
        return {"dists": np.asarray(dists(pictures.images, pictures.hr), np.float64)}

    return Meter("dists", each, about={"dists": "weights of DISTS-pytorch, VGG16"})


def naturalness() -> Meter:
    """NIQE, also of the references, of images that are large enough for it."""

    def each(pictures: Pictures) -> dict[str, np.ndarray]:
        images = pictures.images
        large = niqe.measurable(*images.shape[1:3])
        return {"niqe": niqe.niqe(images) if large else _nothing(images)}

    def end(collected: Collected) -> None:
        if "niqe" in collected.not_measured:
            collected.not_measured["niqe"] += (
                f", as it needs two blocks of {niqe.BLOCK}×{niqe.BLOCK} pixels that are not flat"
            )

    return Meter("niqe", each, end, True, {"niqe": "the published parameters, on luma"})


def many_crops() -> Meter:
    """The kernel distance of many squares of the images from those of the HR images."""

    def each(pictures: Pictures) -> dict[str, np.ndarray]:
        return {"crops": crops.features(pictures.images)} if pictures.hr is not None else {}

    def gathered(collected: Collected, row: str) -> Statistics:
        statistics = Statistics(crops.DIMENSIONS)
        for features in collected.vectors(row, "crops"):
            statistics.add(features)
        return statistics

    def end(collected: Collected) -> None:
        if HR not in collected.rows:
            return
        theirs = gathered(collected, HR)
        size = f"{crops.SIDE}×{crops.SIDE} pixels"
        if theirs.n < crops.FEWEST:
            collected.not_measured["crops_kd"] = (
                f"the images have {theirs.n:,} squares of {size}, and it needs {crops.FEWEST:,}"
            )
            return
        for row in collected.rows:
            if row != HR:
                ours = gathered(collected, row).sample
                collected.whole[row]["crops_kd"] = crops.distance(ours, theirs.sample)
        collected.about["crops_kd"] = f"VGG16 relu4_3, {theirs.n:,} squares of {size}"

    return Meter("crops", each, end, True)


def classes(network: FeatureNetwork, reference: Reference | None = None, name: str = "") -> Meter:
    """FID, KID, precision, recall and the Inception score.

    Args:
      network: What computes features and logits.
      reference: The statistics of the set to compare with; None: those of the run's HR images.
      name: What the HR images are called in the results.
    """

    def each(pictures: Pictures) -> dict[str, np.ndarray]:
        parts = [
            network(pictures.images[start : start + 16])
            for start in range(0, len(pictures.images), 16)
        ]
        return {
            "features": np.concatenate([np.asarray(part.features) for part in parts]),
            "logits": np.concatenate([np.asarray(part.logits) for part in parts]),
        }

    def end(collected: Collected) -> None:
        against, truth = reference, None
        if against is None:
            truth = statistics(collected, HR)
            against = Reference.of(name, truth)
        for row in collected.rows:
            whole = collected.whole[row]
            made = truth if truth and row == HR else statistics(collected, row)
            if row != HR or reference is not None:  # a set's FID against itself is 0
                whole["fid"] = distributions.fid(made, against)
            if against.sample is not None and row != HR:
                whole["kid"] = distributions.kid(made.sample, against.sample)[0]
                if min(made.n, len(against.sample)) > distributions.NEIGHBOUR:
                    whole["precision"], whole["recall"] = distributions.precision_recall(
                        made.sample, against.sample
                    )
            if made.n >= distributions.SPLITS:
                logits = np.concatenate(list(collected.vectors(row, "logits")))
                whole["inception_score"] = distributions.inception_score(logits)[0]

    about: dict[str, Any] = {"network": network.name, "resize": network.resize, "reference": name}
    if reference:
        about |= {"reference": reference.name, "reference_n": reference.n}
    return Meter("fid", each, end, True, {"fid": about})


def statistics(collected: Collected, row: str) -> Statistics:
    """The statistics of a row's features; raises UserError for fewer than two images."""
    statistics: Statistics | None = None
    for features in collected.vectors(row, "features"):
        statistics = statistics or Statistics(features.shape[1])
        statistics.add(features)
    if statistics is None or statistics.n < 2:
        raise UserError("FID and KID need at least 2 images")
    return statistics


def faces(embed: identity.Embed, name: str) -> Meter:
    """Identity of faces: cosine similarity, and rank-1 identification.

    Each image is looked for among the references of all people. Whom it shows is told by the folder
    in its id. Rank 1 is left out if there is only one person, or somebody has only one image.

    Args:
      embed: The network of face recognition.
      name: What it is called in the results.
    """

    def each(pictures: Pictures) -> dict[str, np.ndarray]:
        return {"face": np.asarray(embed(pictures.images))}

    def end(collected: Collected) -> None:
        gallery = np.concatenate(list(collected.vectors(HR, "face")))
        people = [id.rpartition("/")[0] for id in collected.ids]
        counts = Counter(people)
        # Rank 1 needs several people, and another image of each to be found
        ranked = len(counts) > 1 and min(counts.values()) > 1
        for row in collected.rows:
            probes = gallery if row == HR else np.concatenate(list(collected.vectors(row, "face")))
            if ranked:
                collected.per_image[row]["rank_1"] = identity.rank_1(probes, gallery, people)
            collected.per_image[row]["cosine"] = identity.cosine(probes, gallery)

    return Meter(
        "identity",
        each,
        end,
        True,
        {"identity": {"network": name, "gallery": "all other HR images"}},
    )


def accuracy(
    classifier: Classifier, name: str, labels: Callable[[Sequence[str]], np.ndarray]
) -> Meter:
    """Top-1 and top-5 accuracy of a classifier.

    Args:
      classifier: The network.
      name: What it is called in the results.
      labels: Gives the true classes (n,) of images by their ids.
    """

    def each(pictures: Pictures) -> dict[str, np.ndarray]:
        logits, wanted = np.asarray(classifier(pictures.images)), labels(pictures.ids)
        return {f"top_{k}": resnet.accuracy(logits, wanted, k) for k in (1, 5)}

    return Meter("classification", each, None, True, {"classifier": name})


def differences(perceptual: bool = True) -> Meter:
    """How different several samples of one input are, also in relation to their error.

    Without `perceptual` their LPIPS is left out.
    """

    def each(pictures: Pictures) -> dict[str, np.ndarray]:
        samples, hr = pictures.samples, pictures.hr
        if samples is None:
            return {}
        found = {"diversity_deviation": diversity.deviation(samples)}
        if perceptual:
            found["diversity_lpips"] = (
                diversity.pairwise_lpips(samples)
                if min(samples.shape[2:4]) >= SMALLEST["vgg"]
                else _nothing(pictures.images)
            )
        if hr is not None:
            found[SQUARES] = diversity.spread_and_error(samples, hr)
            found["coverage"] = diversity.coverage(samples, hr)
        return found

    def end(collected: Collected) -> None:
        for row in collected.rows:
            if parts := list(collected.vectors(row, SQUARES)):
                ratio = diversity.spread_to_error(np.concatenate(parts))
                collected.whole[row]["spread_to_error"] = ratio

    return Meter("diversity", each, end)
