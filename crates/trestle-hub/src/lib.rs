//! Who listens to what on this node, and the fan-out to them.
