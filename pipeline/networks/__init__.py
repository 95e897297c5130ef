"""Networks: VGG16 for grey mammograms, frozen prefixes, and the feature tap."""

from pipeline.networks.feature_tap import FeatureTap
from pipeline.networks.freezing import bare, freeze_except
from pipeline.networks.start import StartFromData, start_from_data
from pipeline.networks.vgg import VGG16, backbone, vgg16
from pipeline.networks.weights import WeightsError, weights_digest

__all__ = [
    "FeatureTap",
    "StartFromData",
    "VGG16",
    "WeightsError",
    "backbone",
    "bare",
    "freeze_except",
    "start_from_data",
    "vgg16",
    "weights_digest",
]
