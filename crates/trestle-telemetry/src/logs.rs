//! Logs: `tracing` events, filtered by level and target, to stderr. stdout belongs to the commands' output.

use std::io;

use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::{Error, LogFormat, TelemetryConfig};

/// Makes the process log as `config` says.
pub(crate) fn init(config: &TelemetryConfig) -> Result<(), Error> {
    let subscriber = subscriber(config, io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::LogsTaken)
}

/// What turns events into lines for `writer`.
///
/// # Errors
/// [`Error::LogLevel`] if the filter cannot be read.
pub fn subscriber<W>(config: &TelemetryConfig, writer: W) -> Result<Box<dyn Subscriber + Send + Sync>, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_env_filter(filter(config)?).with_writer(writer);
    Ok(match config.log_format {
        // Colours only for a terminal would need to know the writer; logs are read by more than terminals.
        LogFormat::Text => Box::new(lines.with_ansi(false).finish()),
        LogFormat::Json => {
            Box::new(lines.json().flatten_event(true).with_current_span(true).with_span_list(false).finish())
        }
    })
}

/// What is logged.
pub(crate) fn filter(config: &TelemetryConfig) -> Result<EnvFilter, Error> {
    let parsed = EnvFilter::builder().parse(&config.log_level);
    parsed.map_err(|source| Error::LogLevel { filter: config.log_level.clone(), source })
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("no writer panicked").clone()).expect("logs are UTF-8")
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panicked").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(config: &TelemetryConfig) -> String {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = subscriber(config, move || writer.clone()).expect("valid filter");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(port = 8080, "listening");
            tracing::debug!("details");
        });
        page.text()
    }

    #[test]
    fn text_has_the_message_its_fields_and_no_colours() {
        let text = logged(&TelemetryConfig::default());
        assert!(text.contains("listening port=8080"), "{text}");
        assert!(!text.contains("details") && !text.contains('\x1b'), "{text}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(&TelemetryConfig {
            log_format: LogFormat::Json,
            log_level: "debug".into(),
            ..TelemetryConfig::default()
        });
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (&lines[0]["message"], &lines[0]["port"], &lines[0]["level"]),
            (&"listening".into(), &8080.into(), &"INFO".into())
        );
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let config = TelemetryConfig { log_level: "trestle=loud".into(), ..TelemetryConfig::default() };
        let Err(error) = subscriber(&config, io::sink) else { panic!("{:?} is not a filter", config.log_level) };
        assert!(error.to_string().contains("trestle=loud"), "{error}");
    }
}
