"""Writes goldens.npz, and a small file of weights in each of PyTorch's two formats.

goldens.npz is what torch-fidelity and torchvision say of the weights, images and features of
weights.py.

    pip install torch torchvision torch-fidelity scipy tqdm
    python tests/metrics/peers/make_goldens.py     # from the repository's root
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchvision.models import resnet50
from weights import features, images, random_weights


def loaded(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in network.state_dict().items()
        if "num_batches" not in name
    }
    found = {
        name: torch.from_numpy(values) for name, values in random_weights(shapes, seed).items()
    }
    network.load_state_dict(found, strict=False)
    return network.eval()


def inception() -> FeatureExtractorInceptionV3:
    """torch-fidelity's constructor insists on a file."""
    wanted = ["2048", "logits_unbiased"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.hub.load_state_dict_from_url = None
        original = torch.nn.Module.load_state_dict
        torch.nn.Module.load_state_dict = lambda self, *_: None
        torch.save({}, path)
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat", wanted, feature_extractor_weights_path=str(path)
        )
        torch.nn.Module.load_state_dict = original
    return loaded(network, 0)


def save_weights(folder: Path) -> None:
    storage = torch.arange(12, dtype=torch.float32)
    state = {
        "a.weight": storage.reshape(3, 4).t(),  # a view that is not contiguous
        "a.bias": storage[2:5],  # of the same storage
        "half": torch.linspace(0, 1, 5).half(),
        "count": torch.tensor(7),
        "parameter": torch.nn.Parameter(torch.ones(2, 2).double()),
    }
    torch.save(state, folder / "new.pth")
    torch.save(
        {"state_dict": state, "epoch": 3}, folder / "old.pth", _use_new_zipfile_serialization=False
    )


def main() -> None:
    save_weights(Path(__file__).parent)
    found = {}
    with torch.no_grad():
        network = inception()
        for height, width in ((64, 48), (320, 330)):
            out = network(torch.from_numpy(images(height, width).transpose(0, 3, 1, 2).copy()))
            found[f"inception_{height}"], found[f"inception_logits_{height}"] = (
                part.numpy() for part in out
            )
        inputs = torch.from_numpy(images(224, 224).transpose(0, 3, 1, 2).copy()).float() / 255
        mean, deviation = (
            torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        found["resnet"] = loaded(resnet50(weights=None), 1)((inputs - mean) / deviation).numpy()
    a, b = (torch.from_numpy(features(600, 48, 1)), torch.from_numpy(features(500, 48, 2, 0.3)))
    stats = [metric_fid.fid_features_to_statistics(part.double()) for part in (a, b)]
    found["fid"] = metric_fid.fid_statistics_to_metric(*stats, False)["frechet_inception_distance"]
    options = {"kid_subsets": 100, "kid_subset_size": 200, "rng_seed": 2020, "verbose": False}
    kid = metric_kid.kid_features_to_metric(a.double(), b.double(), **options)
    found["kid"] = [kid["kernel_inception_distance_mean"], kid["kernel_inception_distance_std"]]
    score = metric_isc.isc_features_to_metric(a)
    found["inception_score"] = [score["inception_score_mean"], score["inception_score_std"]]
    prc = metric_prc.prc_features_to_metric(
        a, b, prc_neighborhood=3, prc_batch_size=10000, save_cpu_ram=False, verbose=False
    )
    found["precision_recall"] = [prc["precision"], prc["recall"]]
    np.savez_compressed(Path(__file__).with_name("goldens.npz"), **found)
    for name, values in found.items():
        print(name, np.asarray(values).shape, np.asarray(values).ravel()[:3])


if __name__ == "__main__":
    main()
