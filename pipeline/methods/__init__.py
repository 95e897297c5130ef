"""Training methods and terms as handlers for any MONAI `SupervisedTrainer`."""

from pipeline.methods.adversarial_training import AdversarialTraining
from pipeline.methods.alp import ALP
from pipeline.methods.arfl import ARFL
from pipeline.methods.attacking import AttackingMethod
from pipeline.methods.awp import AWP
from pipeline.methods.base import Method, PlugInError, Term
from pipeline.methods.divergence import binary_divergence
from pipeline.methods.dsbn import DSBN
from pipeline.methods.ema import EMA
from pipeline.methods.free import FreeTraining
from pipeline.methods.mart import MART, mart_loss
from pipeline.methods.mirst import MIRST
from pipeline.methods.robust_feature import (
    FeatureShares,
    FeatureTerm,
    feature_shares,
    robust_feature_loss,
    robust_feature_rows,
    trained_term,
)
from pipeline.methods.rows import grow_batch, split_rows
from pipeline.methods.trades import TRADES, trades_loss

__all__ = [
    "ALP",
    "ARFL",
    "AWP",
    "AdversarialTraining",
    "AttackingMethod",
    "DSBN",
    "EMA",
    "FeatureShares",
    "FeatureTerm",
    "FreeTraining",
    "MART",
    "MIRST",
    "Method",
    "PlugInError",
    "TRADES",
    "Term",
    "binary_divergence",
    "feature_shares",
    "grow_batch",
    "mart_loss",
    "robust_feature_loss",
    "robust_feature_rows",
    "split_rows",
    "trades_loss",
    "trained_term",
]
