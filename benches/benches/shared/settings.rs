//! How long criterion measures: short, as only ratios within one run mean anything here.

use std::time::Duration;

use criterion::Criterion;

/// Ten samples in a second, so that all benches together take about three minutes.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args()
}
