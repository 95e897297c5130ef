"""Networks: VGG16 for grey mammograms, other backbones, frozen prefixes, and the feature tap."""

from pipeline.networks.backbone import backbone, rebuilt
from pipeline.networks.domain_norm import (
    AUXILIARY,
    MAIN,
    CalibrateNorms,
    DomainVGG16,
    DomainView,
    has_domains,
    vgg16_domain,
)
from pipeline.networks.feature_cache import pause_cache
from pipeline.networks.feature_tap import FeatureTap
from pipeline.networks.freezing import bare, freeze_except
from pipeline.networks.start import StartFromData, start_from_data
from pipeline.networks.torchvision_backbone import TorchvisionClassifier, last_convolution, torchvision_classifier
from pipeline.networks.vgg import VGG16, vgg16
from pipeline.networks.weights import WeightsError, weights_digest

__all__ = [
    "AUXILIARY",
    "CalibrateNorms",
    "DomainVGG16",
    "DomainView",
    "FeatureTap",
    "MAIN",
    "StartFromData",
    "TorchvisionClassifier",
    "VGG16",
    "WeightsError",
    "backbone",
    "bare",
    "freeze_except",
    "has_domains",
    "last_convolution",
    "pause_cache",
    "rebuilt",
    "start_from_data",
    "torchvision_classifier",
    "vgg16",
    "vgg16_domain",
    "weights_digest",
]
