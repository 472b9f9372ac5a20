//! Metrics: one registry, OpenMetrics text.
//!
//! Each crate registers its own metrics, each with a sentence of help and its unit; nothing is registered from here.

pub use prometheus_client::registry::Registry;

/// The media type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registry of a process while it is composed, and what `/metrics` renders afterwards.
#[derive(Debug, Default)]
pub struct Metrics(Registry);

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where a crate registers its metrics, before the process serves.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.0
    }

    /// All metrics as they are now, as OpenMetrics text.
    #[must_use]
    pub fn render(&self) -> String {
        render(&self.0)
    }
}

/// All metrics of `registry` as they are now, as OpenMetrics text (media type [`CONTENT_TYPE`]).
#[must_use]
pub fn render(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).expect("writing to a String does not fail");
    text
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    #[test]
    fn a_metric_is_rendered_with_its_help_and_its_present_value() {
        let mut metrics = Metrics::new();
        let users = Gauge::<i64>::default();
        metrics.registry().register("connected_users", "Clients connected to this node", users.clone());
        users.set(3);
        assert_eq!(
            metrics.render(),
            "# HELP connected_users Clients connected to this node.\n# TYPE connected_users gauge\n\
             connected_users 3\n# EOF\n"
        );
    }
}
