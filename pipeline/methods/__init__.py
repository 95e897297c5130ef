"""Training methods and terms as handlers for any MONAI `SupervisedTrainer`."""

from pipeline.methods.adversarial_training import AdversarialTraining
from pipeline.methods.arfl import ARFL
from pipeline.methods.base import Method, PlugInError, Term
from pipeline.methods.robust_feature import FeatureShares, feature_shares, robust_feature_loss
from pipeline.methods.rows import grow_batch

__all__ = [
    "ARFL",
    "AdversarialTraining",
    "FeatureShares",
    "Method",
    "PlugInError",
    "Term",
    "feature_shares",
    "grow_batch",
    "robust_feature_loss",
]
