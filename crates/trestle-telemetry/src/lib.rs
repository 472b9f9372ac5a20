//! Sets up logs, traces and metrics, once.
