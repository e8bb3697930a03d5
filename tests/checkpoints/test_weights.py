"""The shipped weights keep their promises, on people they have never seen."""

import importlib.util
from importlib import resources
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sr3_jax.checkpoints.names import load_checkpoint
from sr3_jax.config import differences
from sr3_jax.data.faces import ORL_CARD
from sr3_jax.datasets import debian_photos
from sr3_jax.evaluation import held_out
from sr3_jax.evaluation.contenders import to_uint8
from sr3_jax.evaluation.damage import damaged, recipe
from sr3_jax.inference.generator import Generator
from sr3_jax.inference.upscaler import Upscaler
from sr3_jax.metrics import distortion
from sr3_jax.metrics.lpips import lpips
from sr3_jax.tasks import operations
from sr3_jax.weights import shipped

NAMES = ["faces-16-64", "faces-16-64-regression"]
STUDENT = "faces-16-64-student"
FACES = [*NAMES, STUDENT]
PHOTOS = ["photos-4x-clean", "photos-4x-regression", "photos-4x-student"]
CASCADE = ["fashion-14", "fashion-14-28"]
DEFAULT, RESTORE, BLIND = "photos-4x", "photos-4x-restore", "photos-4x-blind"
CONFIGS = (
    dict.fromkeys(FACES, "orl_16_64")
    | dict.fromkeys(PHOTOS, "photos_4x")
    | {RESTORE: "photos_4x_restore", BLIND: "photos_4x_blind", DEFAULT: "photos_4x_finish"}
    | {"fashion-14": "fashion_14", "fashion-14-28": "fashion_14_28"}
)
OBJECTIVES = dict.fromkeys((NAMES[1], "photos-4x-regression"), "regression") | dict.fromkeys(
    (STUDENT, "photos-4x-student", DEFAULT), "distill"
)
DISTILLED = (
    "sample.sampler sample.schedule sample.steps train.decay_steps train.ema_decay "
    "train.learning_rate train.learning_rate_schedule train.warmup_steps"
).split()
ENDED = [
    "train.decay_steps",
    "train.ema_decay",
    "train.learning_rate_schedule",
    "train.warmup_steps",
]
# what the configs say is different; places on a disk (folder, teacher, init_from) are not compared
OWN = {
    "photos-4x-clean": ENDED,
    "photos-4x-regression": ENDED,
    BLIND: ["task.augment", "task.blur"],  # from before noise-conditioning augmentation
    # a training writes down the classes of its data
    **{name: ["data.class_names"] for name in CASCADE},
    STUDENT: DISTILLED,
    "photos-4x-student": sorted([*DISTILLED, "train.teacher_steps"]),
}


def upscaled(name, data, sample=0):
    return Upscaler.load(name).batch(data.lr, data.ids, sample=sample)


@pytest.mark.fast
def test_each_is_there_by_name_small_and_carries_its_config():
    assert shipped() == sorted(CONFIGS)
    sizes = [
        len((resources.files("sr3_jax") / "weights" / f"{name}.safetensors").read_bytes())
        for name in CONFIGS
    ]
    assert max(sizes) <= 12e6
    assert sum(sizes) <= 60e6
    for name in CONFIGS:
        assert load_checkpoint(name).config.objective == OBJECTIVES.get(name, "sr3")


@pytest.mark.fast
@pytest.mark.parametrize("name", CONFIGS)
def test_each_says_what_it_was_trained_on_whose_it_is_and_under_which_licence(name):
    card = load_checkpoint(name).data_card
    if name in FACES:
        assert card == ORL_CARD
        return
    if name in CASCADE:
        assert "60,000" in card
        assert "MIT" in card
        return
    if name in (*PHOTOS, BLIND, DEFAULT):
        assert card.startswith(
            "# Data\n\n1,867 squares of 256×256 pixels, cut from 158 photographs"
        )
        for package, contents in debian_photos.PACKAGES.items():
            assert f"## {package} {contents.version}" in card
        assert "Note:" not in card  # the very photographs
        assert "For validation, never trained on: " in card
        assert all(name in card for name in debian_photos.VALIDATION)
        return
    assert "sr3 prepare photos --size=160 --tiles=2,3,4 --detail=2.5" in card
    assert card.startswith("# Data\n\n1,716 squares of 160×160 pixels, cut from 31 photographs")
    rows = [line for line in card.splitlines() if ".jpg |" in line]
    assert len(rows) == 31
    for row in rows:
        assert row.endswith(
            ("| CC-BY-4.0 |", "| CC-BY-SA-4.0 |", "| CC-BY-SA-3.0 |", "| CC0-1.0 |", "| GPL-2+ |")
        )
    for package in ("lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04", "mate-backgrounds"):
        assert f"## {package} {debian_photos.PACKAGES[package].version}" in card


@pytest.mark.fast
@pytest.mark.parametrize("name", CONFIGS)
def test_its_config_is_the_one_that_is_said_to_train_it(name):
    spec = importlib.util.spec_from_file_location(
        "config", Path(__file__).parents[2] / f"configs/{CONFIGS[name]}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ours = module.get_config()
    ours.objective = load_checkpoint(name).config.objective
    found = [line.partition(":")[0] for line in differences(ours, load_checkpoint(name).config)]
    assert found == OWN.get(name, [])


def detail(images):
    """The energy of the Laplacian."""
    x = images[..., 0].astype(float)
    neighbours = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
    return np.square(4 * x[:, 1:-1, 1:-1] - neighbours).mean()


def test_regression_beats_a_fitted_linear_filter_and_a_sample_agrees_with_its_input():
    """A 5×5 linear filter fitted on the training people reaches 25.25 dB on all 100 images."""
    data = held_out.load(load_checkpoint(NAMES[0]).config)
    regression = held_out.mean_scores(to_uint8(upscaled(NAMES[1], data)), data)
    assert regression["psnr"] >= 25.5

    few = held_out.load(load_checkpoint(NAMES[0]).config, limit=10)
    sample = held_out.mean_scores(to_uint8(upscaled(NAMES[0], few)), few)
    best = held_out.mean_scores(to_uint8(upscaled(NAMES[1], few)), few)
    assert sample["psnr"] >= best["psnr"] - 3
    assert sample["consistency_db"] >= 40


def test_one_evaluation_of_the_student_is_about_as_good_as_a_hundred_of_its_teacher():
    """On ten held-out images.

    On all 100 (docs/results.md) LPIPS by VGG is .182 and .186, the latter between .179 and .192.
    """
    data = held_out.load(load_checkpoint(NAMES[0]).config, limit=10)
    student, teacher = Upscaler.load(STUDENT), Upscaler.load(NAMES[0])
    assert student.cost(1, 1).evaluations == 1
    made = [
        to_uint8(each.batch(data.lr, data.ids, steps=steps))
        for each, steps in ((student, None), (teacher, 100))
    ]
    ours, theirs = (lpips(images, data.hr, "vgg") for images in made)
    assert ours.mean() < theirs.mean() + 0.01
    ours, theirs = (lpips(images, data.hr, "alexnet") for images in made)
    # The teacher's single evaluation: more than twice as much
    assert ours.mean() < 1.3 * theirs.mean()
    again = to_uint8(student.batch(data.lr, data.ids, sample=1))
    assert np.abs(again.astype(float) - made[0]).mean() > 2  # samples, not one guess


def test_a_sample_has_the_detail_that_bicubic_lacks_and_no_grid_of_the_pixels_that_the_network_folds():  # noqa: E501
    data = held_out.load(load_checkpoint(NAMES[0]).config, limit=10)
    sample = to_uint8(upscaled(NAMES[0], data))
    assert 10 * detail(data.bicubic) < detail(sample) < 1.2 * detail(data.hr)
    error = sample.astype(float) - data.hr
    phases = [error[:, row::2, column::2].mean() for row in (0, 1) for column in (0, 1)]
    assert np.abs(phases).max() < 1  # levels of 255


@pytest.mark.slow
def test_the_mean_of_eight_samples_approaches_the_regression_without_a_shift_of_brightness():
    data = held_out.load(load_checkpoint(NAMES[0]).config)
    samples = np.stack([upscaled(NAMES[0], data, sample) for sample in range(8)])
    regression, one, mean = (
        held_out.mean_scores(to_uint8(images), data)
        for images in (upscaled(NAMES[1], data), samples[0], samples.mean(0))
    )
    assert one["psnr"] >= regression["psnr"] - 3
    assert mean["psnr"] >= regression["psnr"] - 0.8
    assert one["consistency_db"] >= 40
    shift = (samples[0] - data.hr / 127.5 + 1).mean((1, 2, 3)) * 127.5
    assert np.abs(shift).max() < 2  # levels of 255, image by image


def photographs():
    """Crops of 128² of scikit-image's photographs, reduced twice.

    The network has seen none of them.
    """
    import skimage.data

    boxes = {"astronaut": (64, 0), "coffee": (60, 160), "chelsea": (20, 95), "rocket": (40, 80)}
    found = []
    for name, (top, left) in boxes.items():
        photo = Image.fromarray(getattr(skimage.data, name)())
        small = photo.resize((photo.width // 2, photo.height // 2), Image.Resampling.BICUBIC)
        found.append(np.asarray(small.crop((left, top, left + 128, top + 128))))
    return np.stack(found)


def reduced(hr):
    """A quarter of the size, with the values of an 8-bit file."""
    return operations.quantize(operations.resize(operations.to_float(jnp.asarray(hr)), 32, 32))


def test_photographs_come_out_nearer_to_the_truth_and_sharper_than_bicubic_and_agree_with_what_was_given():  # noqa: E501
    hr = photographs()
    lr = to_uint8(reduced(hr))
    bicubic = to_uint8(operations.resize(operations.to_float(jnp.asarray(lr)), 128, 128))
    found = Upscaler.load("photos-4x-clean")(lr)
    ours, theirs = (distortion.scores(images, hr, lr) for images in (found, bicubic))
    assert ours["psnr"].mean() > theirs["psnr"].mean() + 0.5
    assert ours["consistency_db"].min() > 50
    assert lpips(found, hr, "alexnet").mean() < 0.65 * lpips(bicubic, hr, "alexnet").mean()
    assert lpips(found, hr, "vgg").mean() < lpips(bicubic, hr, "vgg").mean()
    assert detail(found[..., 1:2]) > 4 * detail(bicubic[..., 1:2])


def test_a_sample_of_photographs_is_nearer_by_lpips_than_its_control_and_the_student_is_sharper_still():  # noqa: E501
    hr = photographs()
    lr = to_uint8(reduced(hr))
    names = ("photos-4x-regression", "photos-4x-clean", "photos-4x-student")
    control, teacher, student = map(Upscaler.load, names)
    assert (teacher.cost(1, 1).evaluations, student.cost(1, 1).evaluations) == (2, 1)
    best, sample, sharp = (network(lr) for network in (control, teacher, student))
    assert lpips(sample, hr, "vgg").mean() < lpips(best, hr, "vgg").mean()
    by_alexnet = [lpips(made, hr, "alexnet").mean() for made in (sharp, sample, best)]
    assert by_alexnet == sorted(by_alexnet)
    for made in (sample, sharp):
        assert distortion.psnr(made, hr).mean() > distortion.psnr(best, hr).mean() - 1.5
        assert distortion.scores(made, hr, lr)["consistency_db"].min() > 50


@pytest.mark.parametrize(
    ("noise", "blur", "gain"), [(8.0, 0.0, 0.3), (0.0, 1.0, 0.6), (4.0, 0.8, 0.5)]
)
def test_a_network_takes_off_noise_and_blur_that_it_is_told_of_and_the_default_enlarges_them(
    noise, blur, gain
):
    hr = photographs()
    lr = operations.resize(operations.to_float(jnp.asarray(hr)), 32, 32)
    drawn = np.random.default_rng(0).normal(size=lr.shape) * noise / 127.5
    lr = operations.gaussian_blur(lr, jnp.full(len(lr), blur, jnp.float32)) + jnp.asarray(
        drawn, jnp.float32
    )
    lr = to_uint8(lr)
    theirs = Upscaler.load("photos-4x-clean")(lr, match_input=False)
    ours = Upscaler.load("photos-4x-restore")(lr, noise=noise, blur=blur, match_input=False)
    assert distortion.psnr(ours, hr).mean() > distortion.psnr(theirs, hr).mean() + gain
    assert lpips(ours, hr, "alexnet").mean() < lpips(theirs, hr, "alexnet").mean() - 0.03


def test_a_blind_network_takes_off_what_nobody_tells_it_of():
    hr = photographs()
    lr = np.stack([damaged(one, 4, recipe("medium", str(i))) for i, one in enumerate(hr)])
    ours, theirs = (
        Upscaler.load(name)(lr, match_input=False) for name in (BLIND, "photos-4x-clean")
    )
    assert distortion.psnr(ours, hr).mean() > distortion.psnr(theirs, hr).mean() + 0.15
    assert lpips(ours, hr, "alexnet").mean() < lpips(theirs, hr, "alexnet").mean() - 0.03


@pytest.mark.parametrize(("level", "by_vgg"), [("mild", 1.02), ("medium", 0.98)])
def test_the_default_draws_what_is_lost_and_takes_off_what_is_wrong_in_one_evaluation(
    level, by_vgg
):
    hr = photographs()
    lr = np.stack([damaged(one, 4, recipe(level, str(i))) for i, one in enumerate(hr)])
    network = Upscaler.load(DEFAULT)
    assert network.cost(1, 1).evaluations == 1
    ours, clean = network(lr), Upscaler.load("photos-4x-clean")(lr, match_input=False)
    bicubic = to_uint8(operations.resize(operations.to_float(jnp.asarray(lr)), 128, 128))
    for metric, factor in (("alexnet", 0.85), ("vgg", by_vgg)):
        others = [lpips(images, hr, metric).mean() for images in (clean, bicubic)]
        assert lpips(ours, hr, metric).mean() < factor * min(others)
    assert distortion.psnr(ours, hr).mean() > distortion.psnr(bicubic, hr).mean() - 1
    # not just sharper: flat surfaces get no pattern
    flat = np.full((1, 32, 32, 3), (60, 120, 180), np.uint8)
    assert np.abs(network(flat).astype(float) - flat[0, 0, 0]).max() < 8


def test_the_control_of_the_photographs_has_the_higher_psnr_and_less_detail_than_a_sample():
    hr = photographs()
    lr = to_uint8(reduced(hr))
    ours, control = (
        Upscaler.load(name)(lr, match_input=False)
        for name in ("photos-4x-clean", "photos-4x-regression")
    )
    psnr, best = (distortion.psnr(images, hr).mean() for images in (ours, control))
    assert best - 2.5 < psnr < best
    assert detail(control[..., 1:2]) < detail(ours[..., 1:2])


def test_the_cascade_makes_the_class_that_it_is_asked_for():
    """By what can be seen of a few classes without a classifier, in 28×28 images of them."""
    generator = Generator.load(CASCADE)
    made = {
        name: generator(6, classes=[name], seed=1)[..., 0] / 255
        for name in ("trouser", "bag", "sneaker")
    }
    assert made["bag"].shape == (6, 28, 28)
    light = {name: images.mean((1, 2)) for name, images in made.items()}
    # a pair of trousers is narrow, a shoe lies at the bottom, a bag fills the image
    outside = {
        name: images[:, :, [0, 1, 2, 25, 26, 27]].mean((1, 2)) for name, images in made.items()
    }
    assert np.median(outside["trouser"]) < 0.05 < np.median(outside["bag"])
    assert np.median(made["sneaker"][:, :8].mean((1, 2))) < 0.05
    assert np.median(light["bag"]) > np.median(light["sneaker"])
    assert min(np.ptp(images, axis=0).mean() for images in made.values()) > 0.1  # not one image
