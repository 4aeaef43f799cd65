"""Signal and noise of the gradients, from the norms that `fit` keeps."""

import pandas as pd


def signal_to_noise(gradients: pd.DataFrame) -> pd.DataFrame:
    """Return the gradients' mean and deviation by the weights' norm, and their ratio.

    mean = ‖⟨∇W⟩‖₂ / ‖W‖₂,  deviation = ‖std ∇W‖₂ / ‖W‖₂,  ratio = mean / deviation; averages run
    over the batches of an epoch, W is taken at its end.

    Args:
        gradients: `History.gradients`.
    Returns:
        The same rows with the columns mean, deviation and ratio (no unit).
    Source: the thesis, eq. 3.7-3.9 [landsverk2021inductive].
    """
    mean = gradients["mean_norm"] / gradients["weight_norm"]
    deviation = gradients["deviation_norm"] / gradients["weight_norm"]
    return gradients.assign(mean=mean, deviation=deviation, ratio=mean / deviation)


def cumulative_signal_to_noise(gradients: pd.DataFrame) -> pd.DataFrame:
    """Return the curves that the original paper's published code draws.

    mean = Σ ‖⟨∇W⟩‖₂,  deviation = √(Σ ‖std ∇W‖₂); both sums run from the first weight to this one.
    The root is that code's: where the sum is below one it lifts the deviations off the means.

    Args:
        gradients: `History.gradients`, weights first to last within each run and epoch.
    Returns:
        The same rows with the columns mean, deviation and ratio.
    Source: the plotting code that accompanies Shwartz-Ziv & Tishby (2017)
        [shwartz2017opening]; it takes gradients after the update, `fit` those of the update.
    """
    sums = gradients.groupby(["run", "epoch"], sort=False)[["mean_norm", "deviation_norm"]]
    summed = sums.cumsum()
    mean, deviation = summed["mean_norm"], summed["deviation_norm"] ** 0.5
    return gradients.assign(mean=mean, deviation=deviation, ratio=mean / deviation)


def turning_epoch(ratios: pd.DataFrame) -> pd.Series:
    """Return for each run and weight the epoch where the mean first falls below the deviation.

    It is the first epoch with a ratio below one after an epoch with a ratio of one or more.

    Args:
        ratios: what `signal_to_noise` or `cumulative_signal_to_noise` returns.
    Returns:
        Epochs by (run, weight); NaN where the mean was never above, or never fell below.
    """

    def first_fall(rows: pd.DataFrame) -> float:
        rows = rows.sort_values("epoch")
        was_above = (rows["ratio"] >= 1).cummax()
        return float(rows.loc[was_above & (rows["ratio"] < 1), "epoch"].min())

    grouped = ratios.groupby(["run", "weight"], sort=False)[["epoch", "ratio"]]
    return grouped.apply(first_fall)
